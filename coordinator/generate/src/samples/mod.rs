//! Days of main_summary/v4 with known `addon_aggregates_v2` totals: a file for each sample.
//!
//! As in production, `sample_id = crc32(client_id) % 100`, pings are not deduplicated, some clients send very many pings, and
//! any value can be null. Not here: the values of a client and its pings (`profile`), their columns (`ping_block`), the
//! totals (`group_totals`).

mod group_totals;
mod ping_block;
mod profile;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use group_totals::SampleTotals;

use crate::draw::{Draw, key};
use crate::ids::SAMPLES;
use crate::layout::{Layout, Table};
use crate::work::Work;
use crate::{GenerateError, Options, Progress};
use group_totals::Counter;
use ping_block::{PingBlock, Words};
use profile::{Profile, Samples};

/// The dataset whose inputs are generated.
pub const DATASET: &str = "addon_aggregates_v2";
/// The folder of the table.
const TABLES: [&str; 1] = ["main_summary/v4"];
/// The part of the key that decides the order of a file's pings.
const ORDER: u64 = 8 << 40;

/// Writes the day as `main_summary/v4`, and `<output>.<dataset>.<date>.totals.json` with the returned totals, until another thread sets
/// `stop`. `progress` is called from all threads; it has no rows of `addons`.
///
/// # Errors
/// As [`crate::generate_until`]. The options `shuffle` and `overactive` are refused: the folder of a ping is its sample.
pub fn generate_samples(
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
    stop: &AtomicBool,
) -> Result<SampleTotals, GenerateError> {
    let date = options.validate()?;
    let refused = |option| GenerateError::Option {
        option,
        value: "set".into(),
        rule: "cannot be used for a dataset with sample folders",
    };
    match options {
        Options { shuffle: true, .. } => return Err(refused("shuffle")),
        Options { overactive: Some(_), .. } => return Err(refused("overactive-pings")),
        _ => (),
    }
    let layout = Layout::prepare(options, DATASET, &TABLES)?;
    let run = Run {
        options,
        samples: Samples::new(options, date),
        words: Words::new(options.addons),
        layout,
        progress,
        work: Work::new(SAMPLES as usize, stop),
        files: AtomicU32::new(0),
        rows: AtomicU64::new(0),
        totals: Mutex::default(),
    };
    run.all().inspect_err(|_| {
        // Report the first failure; its cause may also prevent the cleanup.
        let _ = run.layout.clean_up();
    })
}

struct Run<'a> {
    options: &'a Options,
    samples: Samples,
    words: Words,
    layout: Layout,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// A task for each sample.
    work: Work<'a>,
    files: AtomicU32,
    rows: AtomicU64,
    totals: Mutex<SampleTotals>,
}

impl Run<'_> {
    fn all(&self) -> Result<SampleTotals, GenerateError> {
        self.work.run(self.options.threads, |sample| self.sample(sample as u32))?;
        let mut totals = self.totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        totals.date.clone_from(&self.options.date);
        self.layout.write_totals(&totals)?;
        Ok(totals)
    }

    /// Writes the file of a sample, and counts its totals.
    fn sample(&self, sample: u32) -> Result<(), GenerateError> {
        self.file(sample)?;
        let mut counter = Counter::default();
        for number in self.samples.members(sample) {
            counter.add(&self.samples, &self.samples.profile(sample, number));
            if self.work.is_over() {
                return Ok(());
            }
        }
        self.totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(&counter.finish());
        self.files.fetch_add(1, Ordering::Relaxed);
        self.report();
        Ok(())
    }

    /// Writes the file of a sample: its pings in random order.
    fn file(&self, sample: u32) -> Result<(), GenerateError> {
        let mut pings: Vec<(u32, u32)> = vec![];
        for number in self.samples.members(sample) {
            let count = self.samples.ping_count(sample, number);
            pings.extend((0..count).map(|ping| (number, ping)));
        }
        if pings.is_empty() {
            return Ok(());
        }
        Draw::new(key(key(self.options.seed, ORDER), sample.into())).permute(&mut pings);
        let mut block = PingBlock::new(&self.words, self.options.narrow);
        let mut file = self.layout.create(Table::MainSummary, sample, block.finish()?.schema())?;
        let mut last: Option<(u32, Profile)> = None;
        for (at, &(number, ping)) in pings.iter().enumerate() {
            let profile = match last.take() {
                Some((same, profile)) if same == number => profile,
                _ => self.samples.profile(sample, number),
            };
            let (head, elements) = self.samples.ping(&profile, ping);
            block.push(&profile, &head, elements);
            last = Some((number, profile));
            if block.is_full() || at + 1 == pings.len() {
                let rows = block.finish()?;
                file.write(&rows)?;
                self.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                self.report();
            }
            // The file is not needed.
            if self.work.is_over() {
                return Ok(());
            }
        }
        file.finish()
    }

    fn report(&self) {
        (self.progress)(Progress {
            files: self.files.load(Ordering::Relaxed),
            all_files: SAMPLES,
            main_summary_rows: self.rows.load(Ordering::Relaxed),
            addons_rows: 0,
        });
    }
}
