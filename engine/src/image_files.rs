//! Questions asked of files inside an image.
