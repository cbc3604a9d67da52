//! Reads the footers of a table's files: their columns, their row groups, and whether they can be read.
//!
//! Of each file only its work is kept, and nothing of files without row groups. Files whose rows are ignored count as files
//! without rows: their columns are part of the day's schema. Not here: what the columns must be (`schema`), which files
//! there are (`listing`).

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tally_common::stores::urls;
use tally_dataset::TableSpec;
use tally_scan::footer::{Footer, Footers};
use tally_scan::{InputFile, excerpt};

use super::PlanError;
use super::folders::Divided;
use super::schema::TableSchema;
use super::shards::{FileWork, RowGroupWork};

/// Footers of objects that are read at a time.
const CONCURRENT_FOOTERS: usize = 16;
/// Threads that read the footers of local files.
const LOCAL_THREADS: usize = 4;

/// What is needed of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// Their rows, and their columns now.
    Rows,
    /// Their rows. Workers read the footers of those that are small and in an object store.
    RowsLater,
    /// Only their columns.
    Columns,
}

/// What the planner read of a table's files.
pub struct Inspected {
    /// The columns of the files whose footers were read.
    pub schema: TableSchema,
    /// The files with row groups, in their order. A file without them if there are no others.
    pub work: Vec<FileWork>,
    /// Rows of the files whose footers were read.
    pub rows: u64,
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Workers read the footers of some files.
    pub deferred: bool,
    /// A file without row groups.
    empty: Option<FileWork>,
}

impl Inspected {
    fn none(table: &Arc<TableSpec>) -> Self {
        let schema = TableSchema::new(table.clone());
        Inspected { schema, work: vec![], rows: 0, fetched: 0, deferred: false, empty: None }
    }

    /// Adds a file whose footer is read by workers.
    fn defer(&mut self, file: InputFile) {
        self.deferred = true;
        self.work.push(FileWork::deferred(file));
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The footer describes a chunk of a needed column as unreadable, and its rows are needed.
    fn add(
        &mut self,
        table: &TableSpec,
        mut file: InputFile,
        footer: &Footer,
        needed: Needed,
    ) -> Result<(), PlanError> {
        let metadata = &footer.metadata;
        file.footer = Some(footer.bytes);
        self.fetched += footer.fetched;
        let found = self.schema.lookup(metadata);
        let groups = if needed == Needed::Columns { &[] } else { metadata.row_groups() };
        let mut rows = 0;
        if needed != Needed::Columns {
            footer.check_readable(&file, found.leaves(table))?;
            rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        }
        self.rows = self.rows.saturating_add(rows);
        self.schema.add(&file.name, rows, &found.columns);
        if groups.is_empty() && self.empty.is_some() {
            return Ok(());
        }
        let leaves: Vec<usize> = found.leaves(table).map(|(_, leaf)| leaf).collect();
        let row_groups: Vec<_> = (0u32..)
            .zip(groups)
            .map(|(number, group)| {
                let rows = u64::try_from(group.num_rows()).unwrap_or(0);
                // Nothing is read of a row group without rows, and its chunks are not checked.
                let read = leaves.iter().filter(|_| rows > 0);
                let needed = read.filter_map(|&leaf| group.columns().get(leaf));
                let bytes = needed.map(|c| u64::try_from(c.compressed_size()).unwrap_or(0)).sum();
                RowGroupWork { number, bytes, rows }
            })
            .collect();
        // The footer of a file that contradicts itself is not sent: the worker that scans the file reports the error.
        let footer = match urls::is_local(&file.name) {
            true => vec![],
            false => excerpt::of(metadata, &leaves).unwrap_or_default(),
        };
        let without = row_groups.is_empty();
        let work = FileWork { file: Arc::new(file), row_groups, footer };
        match without {
            true => self.empty = Some(work),
            false => self.work.push(work),
        }
        Ok(())
    }

    /// Adds later files.
    fn append(&mut self, later: Inspected) {
        self.schema.append(later.schema);
        self.work.extend(later.work);
        self.rows = self.rows.saturating_add(later.rows);
        self.fetched += later.fetched;
        self.deferred |= later.deferred;
        self.empty = self.empty.take().or(later.empty);
    }

    /// Every table has a file to read, because every table has a task.
    fn ended(mut self) -> Self {
        if self.work.is_empty() {
            self.work.extend(self.empty.take());
        }
        self
    }
}

/// Reads the footers of a table's files. With `defer`, workers read those of small files in object stores, unless their
/// rows are ignored.
///
/// # Errors
/// [`PlanError`] names the first file that cannot be read.
pub(super) async fn inspect(
    files: Divided,
    footers: &Arc<Footers>,
    table: &TableSpec,
    defer: bool,
) -> Result<Inspected, PlanError> {
    let needed = if defer { Needed::RowsLater } else { Needed::Rows };
    let mut all = read_footers(files.read, footers, table, needed).await?;
    all.append(read_footers(files.ignored, footers, table, Needed::Columns).await?);
    Ok(all.ended())
}

/// The same for files of one kind.
async fn read_footers(
    files: Vec<InputFile>,
    footers: &Arc<Footers>,
    table: &TableSpec,
    needed: Needed,
) -> Result<Inspected, PlanError> {
    let table = Arc::new(table.clone());
    let mut all = Inspected::none(&table);
    if files.is_empty() {
        return Ok(all);
    }
    if files.iter().all(|file| urls::is_local(&file.name)) {
        let footers = footers.clone();
        let read = move || read_local(files, &footers, &table, needed);
        for part in tokio::task::spawn_blocking(read).await.unwrap_or(Err(PlanError::Panic))? {
            all.append(part);
        }
        return Ok(all);
    }
    let read = files.into_iter().map(|file| async move {
        let footer = match needed == Needed::RowsLater && file.is_small() {
            true => None,
            false => Some(footers.get(&file).await?),
        };
        Ok::<_, PlanError>((file, footer))
    });
    let mut read = futures::stream::iter(read).buffered(CONCURRENT_FOOTERS);
    while let Some((file, footer)) = read.try_next().await? {
        match footer {
            Some(footer) => all.add(&table, file, &footer, needed)?,
            None => all.defer(file),
        }
    }
    Ok(all)
}

/// Reads the footers of local files on a few threads, each of which takes successive files: a round trip to the runtime's
/// blocking threads costs more than reading a footer. Blocks.
fn read_local(
    mut files: Vec<InputFile>,
    footers: &Footers,
    table: &Arc<TableSpec>,
    needed: Needed,
) -> Result<Vec<Inspected>, PlanError> {
    let part = files.len().div_ceil(LOCAL_THREADS).max(1);
    let mut parts = vec![];
    while !files.is_empty() {
        let rest = files.split_off(part.min(files.len()));
        parts.push(std::mem::replace(&mut files, rest));
    }
    let read = |part: Vec<InputFile>| -> Result<Inspected, PlanError> {
        let mut inspected = Inspected::none(table);
        for file in part {
            let footer = footers.get_local(&file)?;
            inspected.add(table, file, &footer, needed)?;
        }
        Ok(inspected)
    };
    std::thread::scope(|scope| {
        let read = &read;
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || read(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(PlanError::Panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use object_store::local::LocalFileSystem;
    use object_store::path::Path;
    use parquet::data_type::Int64Type;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use tally_dataset::{ColumnKind, ColumnSpec, Missing};

    use super::*;
    use crate::plan::schema::check_missing;

    fn table() -> TableSpec {
        let column =
            ColumnSpec { path: &["day"], kind: ColumnKind::Int64, filter: false, missing: Missing::Fails };
        TableSpec { name: "t", help: "", columns: vec![column] }
    }

    /// A file with row groups of those numbers of rows.
    fn write(path: &std::path::Path, column: &str, groups: &[usize]) -> InputFile {
        let schema = parse_message_type(&format!("message m {{ required {column}; }}")).unwrap();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
        for &rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let mut chunk = group.next_column().unwrap().unwrap();
            chunk.typed::<Int64Type>().write_batch(&vec![7; rows], None, None).unwrap();
            chunk.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        let found = std::fs::metadata(path).unwrap();
        let key = Path::from_absolute_path(path).unwrap();
        InputFile::local(Arc::new(LocalFileSystem::new()), key, path.display().to_string(), &found)
    }

    /// Inspects a file per list of row groups, and returns the rows of each file that has work.
    async fn inspected(files: &[&[usize]]) -> (Inspected, Vec<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let name = |at: usize| folder.path().join(format!("{at:03}"));
        let inputs = files.iter().enumerate().map(|(at, groups)| write(&name(at), "int64 day", groups));
        let footers = Arc::new(Footers::new(1 << 20));
        let files = Divided { read: inputs.collect(), ignored: vec![] };
        let found = inspect(files, &footers, &table(), true).await.unwrap();
        let rows = found.work.iter().map(FileWork::rows).collect();
        (found, rows)
    }

    #[tokio::test]
    async fn files_without_row_groups_have_no_work_unless_there_are_no_others() {
        let (found, rows) = inspected(&[&[], &[1, 2], &[], &[4], &[], &[], &[8], &[]]).await;
        assert_eq!(rows, [3, 4, 8]);
        assert_eq!((found.rows, found.deferred), (15, false));
        let presence = found.schema.check(true).unwrap();
        assert_eq!((presence.with_rows[0].found, presence.without_rows[0].found), (3, 5));
        let (found, rows) = inspected(&[&[], &[], &[]]).await;
        assert_eq!((rows, found.work.len()), (vec![0], 1));
    }

    #[tokio::test]
    async fn local_files_keep_their_order() {
        let groups: Vec<Vec<usize>> = (0..41).map(|file| vec![1 + file]).collect();
        let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
        let (_, rows) = inspected(&groups).await;
        assert_eq!(rows, (1..42).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn the_first_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = vec![];
        for at in 0..20 {
            inputs.push(write(&folder.path().join(format!("{at:03}")), "int64 day", &[1]));
        }
        for changed in [13, 7, 18] {
            std::fs::write(folder.path().join(format!("{changed:03}")), "no Parquet file").unwrap();
        }
        let footers = Arc::new(Footers::new(1 << 20));
        let files = Divided { read: inputs, ignored: vec![] };
        let error = inspect(files, &footers, &table(), true).await.err().unwrap().to_string();
        assert!(error.contains("007") && error.contains("changed"), "{error}");
    }

    #[tokio::test]
    async fn columns_of_ignored_files_count_and_their_rows_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, column| write(&folder.path().join(name), column, &[2, 1]);
        let footers = Arc::new(Footers::new(1 << 20));
        let inspected =
            async |read, ignored| inspect(Divided { read, ignored }, &footers, &table(), true).await.unwrap();
        let found = inspected(vec![file("a", "int64 other")], vec![file("b", "int64 day")]).await;
        assert_eq!((found.rows, found.work.len(), found.work[0].rows()), (3, 1, 3));
        let presence = found.schema.check(true).unwrap();
        assert_eq!(check_missing(&table(), &presence).unwrap().len(), 1);
        // Without the ignored file, no file has the column.
        let found = inspected(vec![file("a", "int64 other")], vec![]).await;
        let presence = found.schema.check(true).unwrap();
        assert!(check_missing(&table(), &presence).is_err());
        // All are ignored: the columns are those of all.
        let found = inspected(vec![], vec![file("a", "int64 other"), file("b", "int64 day")]).await;
        assert_eq!((found.rows, found.work.len(), found.work[0].row_groups.len()), (0, 1, 0));
        let presence = found.schema.check(true).unwrap();
        assert!(check_missing(&table(), &presence).is_ok());
    }
}
