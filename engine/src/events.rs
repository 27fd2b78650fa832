//! What happened, as a log others can follow.
