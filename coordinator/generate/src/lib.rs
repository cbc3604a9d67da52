//! Writes synthetic telemetry days whose right `addon_aggregates` totals are known beforehand: layout, schema and habits
//! of main_summary/v3 and addons/v2, for any number of clients in bounded memory.
//!
//! Nothing here knows the engine: the totals come from the draws that made the rows. No command line either; the `tally`
//! binary calls [`generate`].
//!
//! How it stays small: every value is a pure function of (seed, client, ping), so nothing about a client is kept. A
//! thread holds one output file's list of pings in write order (8 bytes a ping), one block of some 64 Ki rows, and the
//! encoded pages of a row group per table (2^20 rows). Peaks measured with two threads: 95 MiB for 10 million clients
//! narrow; with full row groups 220 MiB narrow (111 million clients), 250 MiB narrow and shuffled, 500 MiB wide. The
//! list of the busiest file is the only part that grows further.

mod block;
mod client;
mod draw;
mod error;
mod ids;
mod layout;
mod options;
mod population;
mod run;
mod spread;
mod strings;
mod totals;

pub use error::GenerateError;
pub use options::{Options, Overactive};
pub use run::{Progress, generate};
pub use totals::Totals;
