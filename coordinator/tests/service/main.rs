//! The coordinator's service over a real server: workers and clients are played by the tests.

mod attach;
mod drain;
mod jobs;
mod resume;
mod rig;
