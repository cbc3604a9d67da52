//! What all processes of Tally need: workers, coordinators and commands.
//!
//! - `security` authenticates and authorizes connections and requests; `refusal_log` logs refused requests.
//! - `connections` makes room for new connections of a listener; `log_limit` bounds the lines that others can cause.
//! - `http` serves health and `metrics`; `logging` is the log; `traces` exports spans; `secrets` redacts all of these.
//! - `config` reads settings from flags, the environment and a file; `environment` reads variables.
//! - `discovery` finds the leader and registers processes in Consul.
//! - `receiver` posts JSON to webhooks and collectors.
//! - `stores` opens the buckets and directories that URLs name.
//! - `budget` limits memory; `memory`, `procfs`, `disk` and `open_files` ask the operating system.
//! - `waits` tells what a task waits for.
//! - `liveness` tells whether the other end of a connection is alive.
//! - `signals` are the requests to end; `retry` is the retry policy; `runtime` runs a future to its end.
//! - `addresses`, `size`, `duration`, `local_dir` and `port_file` support options; `counts` are numbers for people.
//!
//! Not here: anything that only one kind of process does.

pub mod addresses;
pub mod budget;
pub mod config;
mod connections;
pub mod counts;
pub mod discovery;
pub mod disk;
pub mod duration;
pub mod environment;
pub mod http;
pub mod liveness;
pub mod local_dir;
pub mod log_limit;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod open_files;
pub mod port_file;
pub mod procfs;
pub mod receiver;
pub mod refusal_log;
pub mod retry;
pub mod runtime;
pub mod secrets;
pub mod security;
pub mod sha256;
pub mod signals;
pub mod size;
pub mod stores;
pub mod traces;
pub mod waits;
