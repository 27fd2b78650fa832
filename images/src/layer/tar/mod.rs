//! The tar format, read and written: ustar, PAX, GNU.
