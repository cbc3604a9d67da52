//! Whole files, read by the scan.

mod elements;
mod limits;
mod reading;
mod row_group;
mod writing;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
