//! Runs the generator: threads take files and totals from one list, failures clean up, and the totals are written last.
//! Not here: the threads (`work`), the contents and the layout of a file.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::RecordBatch;

use crate::block::Block;
use crate::client::Client;
use crate::layout::{Layout, Table, TableFile};
use crate::population::{NULL_SAMPLE, Population};
use crate::spread::{PingRef, Spread};
use crate::strings::Strings;
use crate::totals::Share;
use crate::work::Work;
use crate::{GenerateError, Options, Totals};

/// The dataset whose inputs are generated.
pub const DATASET: &str = "addon_aggregates";
/// The folders of the tables.
const TABLES: [&str; 2] = ["main_summary/v3", "addons/v2"];

/// The progress of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Finished files of each table, including empty ones.
    pub files: u32,
    /// Maximum number of files of each table.
    pub all_files: u32,
    /// Rows of `main_summary` written so far.
    pub main_summary_rows: u64,
    /// Rows of `addons` written so far.
    pub addons_rows: u64,
}

/// Writes the day and, next to the output folder, `<output>.<dataset>.<date>.totals.json` with the returned totals.
///
/// `progress` is called from all threads, about once per 64 Ki rows.
///
/// # Errors
/// An option is invalid, a partition of either table has files (then nothing is changed), or an I/O error. After a failure
/// both partitions are removed; a killed process leaves them.
pub fn generate(options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<Totals, GenerateError> {
    generate_until(options, progress, &AtomicBool::new(false))
}

/// The same, until another thread sets `stop`.
///
/// # Errors
/// As [`generate`], and [`GenerateError::Stopped`].
pub fn generate_until(
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
    stop: &AtomicBool,
) -> Result<Totals, GenerateError> {
    let date = options.validate()?;
    let layout = Layout::prepare(options, DATASET, &TABLES)?;
    let population = Population::new(options, date);
    let spread = if options.shuffle { Spread::Shuffled } else { Spread::BySample };
    let tasks = tasks(&population, spread.files());
    let run = Run {
        options,
        population,
        strings: Strings::new(options.addons, date),
        spread,
        layout,
        progress,
        work: Work::new(tasks.len(), stop),
        tasks,
        files: AtomicU64::new(0),
        main_summary_rows: AtomicU64::new(0),
        addons_rows: AtomicU64::new(0),
    };
    run.all().inspect_err(|_| {
        // Report the first failure; its cause may also prevent the cleanup.
        let _ = run.layout.clean_up();
    })
}

/// A unit of work for one thread.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// A file of both tables.
    File(u32),
    /// The totals of a sample's clients.
    Totals(u32),
}

/// All tasks, longest first, so that the overactive client is not processed last by a single thread.
fn tasks(population: &Population, files: u32) -> Vec<Task> {
    let long = population.overactive_sample();
    let mut files: Vec<u32> = (0..files).collect();
    files.sort_by_key(|&file| Some(file) != long);
    let mut samples: Vec<u32> = (0..=NULL_SAMPLE).collect();
    samples.sort_by_key(|&sample| Some(sample) != long);
    files.into_iter().map(Task::File).chain(samples.into_iter().map(Task::Totals)).collect()
}

struct Run<'a> {
    options: &'a Options,
    population: Population,
    strings: Strings,
    spread: Spread,
    layout: Layout,
    progress: &'a (dyn Fn(Progress) + Sync),
    tasks: Vec<Task>,
    work: Work<'a>,
    files: AtomicU64,
    main_summary_rows: AtomicU64,
    addons_rows: AtomicU64,
}

impl Run<'_> {
    fn all(&self) -> Result<Totals, GenerateError> {
        let sum = Mutex::new(Share::default());
        self.work.run(self.options.threads, |number| self.task(self.tasks[number], &sum))?;
        let sum = sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let totals = Totals {
            date: self.options.date.clone(),
            rows: sum.rows,
            sum_of_count: sum.sum_of_count,
            n_clients: self.population.clients().into(),
            n_custom_theme_clients: sum.custom_theme_clients,
            main_summary_rows: self.main_summary_rows.load(Ordering::Relaxed),
            addons_rows: self.addons_rows.load(Ordering::Relaxed),
        };
        self.layout.write_totals(&totals)?;
        Ok(totals)
    }

    fn task(&self, task: Task, sum: &Mutex<Share>) -> Result<(), GenerateError> {
        match task {
            Task::File(file) => {
                self.file(file)?;
                self.files.fetch_add(1, Ordering::Relaxed);
                self.report();
            }
            Task::Totals(sample) => {
                let share = Share::of_sample(&self.population, sample);
                sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(share);
            }
        }
        Ok(())
    }

    /// Writes one file of each table.
    fn file(&self, file: u32) -> Result<(), GenerateError> {
        let pings = self.spread.pings(&self.population, self.options.seed, file);
        if pings.is_empty() {
            return Ok(());
        }
        let mut block = Block::new(&self.strings, self.options.narrow);
        let (main, addons) = block.finish()?;
        let mut main = self.layout.create(Table::MainSummary, file, main.schema())?;
        let mut addons = self.layout.create(Table::Addons, file, addons.schema())?;
        // The rows of pings without add-ons are at the end, as after an explode followed by a union.
        let mut empty = Vec::new();
        let mut client = Client::default();
        for &at in &pings {
            self.push(at, &mut client, &mut block);
            if client.addons.is_empty() {
                empty.push(at);
            }
            if block.is_full() {
                let (main_rows, addons_rows) = block.finish()?;
                self.write(&mut main, &main_rows)?;
                self.write(&mut addons, &addons_rows)?;
            }
            // The file is not needed.
            if self.work.is_over() {
                return Ok(());
            }
        }
        let (main_rows, addons_rows) = block.finish()?;
        self.write(&mut main, &main_rows)?;
        self.write(&mut addons, &addons_rows)?;
        main.finish()?;
        for &at in &empty {
            self.push(at, &mut client, &mut block);
            if block.is_full() {
                self.write(&mut addons, &block.finish_empty()?)?;
            }
        }
        self.write(&mut addons, &block.finish_empty()?)?;
        addons.finish()
    }

    fn push(&self, at: PingRef, client: &mut Client, block: &mut Block) {
        self.population.client(at.client, client);
        let (ping, draw) = Population::ping(client, at.ping);
        block.push(client, &ping, draw);
    }

    fn write(&self, file: &mut TableFile, batch: &RecordBatch) -> Result<(), GenerateError> {
        file.write(batch)?;
        let rows = match file.table {
            Table::MainSummary => &self.main_summary_rows,
            Table::Addons => &self.addons_rows,
        };
        rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        self.report();
        Ok(())
    }

    fn report(&self) {
        (self.progress)(Progress {
            files: self.files.load(Ordering::Relaxed) as u32,
            all_files: self.spread.files(),
            main_summary_rows: self.main_summary_rows.load(Ordering::Relaxed),
            addons_rows: self.addons_rows.load(Ordering::Relaxed),
        });
    }
}
