//! The commands that speak to a coordinator, run as a user runs them, against one that a test plays.

#![cfg(test)]

mod ask;
mod consul;
mod fake;
mod submit;
