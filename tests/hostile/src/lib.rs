//! Bytes of strangers: everything that reads them, as plain functions that must neither panic nor hang nor take memory
//! by what the bytes say. The fuzzers (`tests/fuzz`) call these functions, and so do tests on every run, with the
//! fuzzers' corpora and with seeds that are spoilt at random.
//!
//! `seeds` makes good inputs, `spoil` spoils them, `pages` finds where. Not here: clusters that meet strangers (`tests/tests`).

pub mod config;
pub mod consul;
pub mod journal;
pub mod manifest;
pub mod messages;
pub mod pages;
pub mod parquet;
pub mod seeds;
pub mod spoil;

/// A function over a stranger's bytes, under the name of its fuzz target and corpus.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name, also of its corpus.
    pub name: &'static str,
    /// Reads the bytes; a panic is a finding.
    pub body: fn(&[u8]),
    /// Good inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 9] = [
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
];
