//! The files of a day: paths, the check that the day does not exist, Parquet settings. Not here: the contents
//! ([`crate::block`]).

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use serde::Serialize;

use crate::population::NULL_SAMPLE;
use crate::{GenerateError, Options};

/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// The tables of a day.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    MainSummary,
    Addons,
}

/// The partitions of one date, and the file of its totals.
#[derive(Debug)]
pub(crate) struct Layout {
    /// By table.
    partitions: Vec<PathBuf>,
    totals: PathBuf,
    /// Folders above the partitions that did not exist before, outermost first.
    new_folders: Vec<PathBuf>,
}

impl Layout {
    /// The layout of a day of the dataset's inputs, with the folders of [`Table`]s in their order: creates the output folder, and removes a day to
    /// replace.
    ///
    /// # Errors
    /// The name of the output folder is unknown, as for a missing `..`; the day exists and must not be replaced; an I/O
    /// error.
    pub(crate) fn prepare(options: &Options, dataset: &str, tables: &[&str]) -> Result<Self, GenerateError> {
        let layout = Self::new(&options.output, dataset, &options.date, tables)?;
        match options.replace {
            true => layout.remove()?,
            false => layout.require_no_files()?,
        }
        fs::create_dir_all(&options.output).map_err(io("create", &options.output))?;
        Ok(layout)
    }

    fn new(output: &Path, dataset: &str, date: &str, tables: &[&str]) -> Result<Self, GenerateError> {
        let names = tables.iter().filter_map(|table| Path::new(table).parent()?.to_str());
        let above = std::iter::once("").chain(names.zip(tables).flat_map(|(name, table)| [name, table]));
        let mut new_folders: Vec<PathBuf> = output
            .ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(Path::to_path_buf)
            .collect();
        new_folders.reverse();
        new_folders.extend(above.map(|below| output.join(below)));
        new_folders.retain(|folder| !folder.exists());
        let named = match output.file_name() {
            Some(_) => output.to_path_buf(),
            // For "." and "..", the name is that of the folder they refer to.
            None => fs::canonicalize(output).map_err(io("find", output))?,
        };
        let name = named.file_name().ok_or_else(|| GenerateError::Option {
            option: "output",
            value: output.display().to_string(),
            rule: "must be a folder with a name, because the totals are written next to it",
        })?;
        let mut totals = name.to_os_string();
        totals.push(format!(".{dataset}.{date}.totals.json"));
        let partition = |table: &str| output.join(table).join(format!("submission_date_s3={date}"));
        Ok(Layout {
            partitions: tables.iter().map(|table| partition(table)).collect(),
            totals: named.with_file_name(totals),
            new_folders,
        })
    }

    fn partition(&self, table: Table) -> &Path {
        &self.partitions[table as usize]
    }

    /// Fails if any part of the day exists. Empty folders are allowed.
    fn require_no_files(&self) -> Result<(), GenerateError> {
        for partition in &self.partitions {
            if holds_files(partition)? {
                return Err(GenerateError::Exists(partition.clone()));
            }
        }
        Ok(())
    }

    /// Removes the day, which did not exist before, and the folders above them that did not exist before.
    pub(crate) fn clean_up(&self) -> Result<(), GenerateError> {
        self.remove()?;
        for folder in self.new_folders.iter().rev() {
            // Other files may have been put there meanwhile.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }

    /// Removes the totals and the partitions.
    fn remove(&self) -> Result<(), GenerateError> {
        removed(&self.totals, fs::remove_file(&self.totals))?;
        self.partitions.iter().try_for_each(|partition| removed(partition, fs::remove_dir_all(partition)))
    }

    /// Writes the file of totals.
    pub(crate) fn write_totals(&self, totals: &impl Serialize) -> Result<(), GenerateError> {
        let path = &self.totals;
        let text = serde_json::to_string_pretty(totals).map_err(|e| io("write", path)(e.into()))?;
        fs::write(path, text + "\n").map_err(io("write", path))
    }

    /// Opens the part file of a sample.
    pub(crate) fn create(
        &self,
        table: Table,
        sample: u32,
        schema: SchemaRef,
    ) -> Result<TableFile, GenerateError> {
        let (folder, part) = match sample {
            NULL_SAMPLE => ("sample_id=__HIVE_DEFAULT_PARTITION__".to_owned(), 0),
            _ => (format!("sample_id={sample}"), sample),
        };
        let folder = self.partition(table).join(folder);
        fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        let path = folder.join(format!("part-{part:05}.snappy.parquet"));
        let file = File::create_new(&path).map_err(io("create", &path))?;
        let options = ArrowWriterOptions::new()
            .with_properties(properties())
            .with_skip_arrow_metadata(true)
            .with_schema_root("schema".into());
        let writer = ArrowWriter::try_new_with_options(BufWriter::new(file), schema, options);
        let writer = writer.map_err(|source| GenerateError::Parquet { path: path.clone(), source })?;
        Ok(TableFile { table, path, writer })
    }
}

/// The result of a removal. It is no error if there was nothing.
fn removed(path: &Path, result: std::io::Result<()>) -> Result<(), GenerateError> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove the unfinished", path)(error))
        }
        _ => Ok(()),
    }
}

/// The defaults of pyarrow's writer: snappy, data pages v1 of 1 MiB or 20,000 rows, dictionaries up to 1 MiB and
/// then plain pages, statistics per column chunk, no page index. Most of them are also the defaults of this writer; they
/// are explicit because the cost of reading a day depends on them.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_page_size_limit(1 << 20)
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .build()
}

fn holds_files(folder: &Path) -> Result<bool, GenerateError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io("list", folder))?;
        let is_folder = entry.file_type().map_err(io("list", folder))?.is_dir();
        if !is_folder || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Converts an error of the system.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GenerateError {
    move |source| GenerateError::Io { action, path: path.to_path_buf(), source }
}

/// A part file that is being written, with the encoded pages of one row group in memory.
pub(crate) struct TableFile {
    pub(crate) table: Table,
    path: PathBuf,
    writer: ArrowWriter<BufWriter<File>>,
}

impl TableFile {
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), GenerateError> {
        self.writer.write(batch).map_err(|source| GenerateError::Parquet { path: self.path.clone(), source })
    }

    /// Writes the footer.
    pub(crate) fn finish(self) -> Result<(), GenerateError> {
        let TableFile { path, writer, .. } = self;
        let file =
            writer.into_inner().map_err(|source| GenerateError::Parquet { path: path.clone(), source })?;
        file.into_inner().map_err(|error| io("write", &path)(error.into_error()))?;
        Ok(())
    }
}
