//! Untrusted input: each function here passes bytes to code that reads them, and must not panic, hang, or use memory by
//! what the bytes state. The fuzzers (`tests/fuzz`) call these functions. So do tests on every run, with the corpora of
//! the fuzzers and with randomly corrupted seeds.
//!
//! `seeds` makes valid inputs, `mutate` corrupts them, `pages` locates their pages. Not here: clusters with untrusted
//! clients (`tests/tests`).

pub mod config;
pub mod consul;
pub mod journal;
pub mod manifest;
pub mod messages;
pub mod mutate;
pub mod pages;
pub mod parquet;
pub mod seeds;

/// A function that reads untrusted bytes, with the name of its fuzz target and corpus.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name, also of its corpus.
    pub name: &'static str,
    /// Reads the bytes. A panic is a finding.
    pub body: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target { name: "ticket", body: messages::ticket, seeds: seeds::tickets },
    Target { name: "worker_message", body: messages::worker_message, seeds: seeds::worker_messages },
    Target {
        name: "coordinator_message",
        body: messages::coordinator_message,
        seeds: seeds::coordinator_messages,
    },
    Target { name: "journal", body: journal::record, seeds: seeds::records },
    Target { name: "manifest", body: manifest::decision, seeds: seeds::decisions },
    Target { name: "consul", body: consul::answer, seeds: seeds::answers },
    Target { name: "config", body: config::settings, seeds: seeds::settings },
    Target { name: "addons", body: parquet::addons, seeds: seeds::addons },
    Target { name: "main_summary", body: parquet::main_summary, seeds: seeds::main_summary },
    Target { name: "pings", body: parquet::pings, seeds: seeds::pings },
];
