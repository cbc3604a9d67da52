//! Generates synthetic telemetry days with known totals of their datasets, for any number of clients in bounded memory: the
//! layout, schema and characteristics of main_summary/v3 and addons/v2 for `addon_aggregates`, and of main_summary/v4 for
//! `addon_aggregates_v2` ([`samples`]).
//!
//! Not here: the engine. The totals are computed from the random numbers that the rows are drawn from. Nor is there a
//! command line: the `tally` binary calls [`generate`].
//!
//! Memory is bounded because every value is a pure function of (seed, client, ping), so no state per client is kept. A
//! thread holds one output file's list of pings in write order (8 bytes per ping), one block of about 64 Ki rows, and the
//! encoded pages of a row group per table (2^20 rows). Peaks measured with two threads: 95 MiB for 10 million clients
//! narrow; with full row groups 220 MiB narrow (111 million clients), 250 MiB narrow and shuffled, 500 MiB wide. The
//! list of pings of the largest file is the only part that grows with the number of clients.

mod block;
mod client;
mod columns;
mod draw;
mod error;
mod ids;
mod layout;
mod options;
mod population;
mod run;
pub mod samples;
mod spread;
mod strings;
mod totals;
mod work;

pub use error::GenerateError;
pub use options::{Options, Overactive};
pub use run::{DATASET, Progress, generate, generate_until};
pub use totals::Totals;
