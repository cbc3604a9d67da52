//! Writes synthetic telemetry days whose right `addon_aggregates` totals are known beforehand: layout, schema and habits
//! of main_summary/v3 and addons/v2, for any number of clients in bounded memory.
//!
//! Nothing here knows the engine: the totals come from the draws that made the rows. No command line either; the `tally`
//! binary calls [`generate`].
//!
//! How it stays small: every value is a pure function of (seed, client, ping), so nothing about a client is kept. A
//! thread holds one output file's list of pings in write order (8 bytes a ping), one block of some 64 Ki rows, and the
//! encoded pages of a row group per table (2^20 rows). Beyond a fixed 100 MiB or so that is some 200 MiB a thread for
//! narrow days; the single huge cost is 8 bytes for each ping of the busiest file.

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
