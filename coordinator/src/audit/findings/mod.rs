//! What is wrong with a day: its part files are compared with their footers, with each other and with the record of the
//! publish. Pure.
//!
//! Not here: reading the files (`day_audit`).

use std::collections::BTreeMap;

use serde::Serialize;
use tally_common::counts::counted;
use tally_dataset::Dataset;

use crate::part_footer::{DayFooter, PartFooter};
use crate::publish::commit_log::{Manifest, ManifestPart};
use crate::results::checksum_text;
use crate::summary::grouped;

/// Something that is wrong with a published day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, if it is about one.
    pub file: Option<String>,
    /// What differs.
    pub problem: String,
}

impl Finding {
    pub(super) fn of_day(problem: impl Into<String>) -> Self {
        Finding { file: None, problem: problem.into() }
    }

    pub(super) fn of_file(file: &str, problem: impl Into<String>) -> Self {
        Finding { file: Some(file.into()), problem: problem.into() }
    }
}

/// What was read of a part file.
#[derive(Debug, Clone, Default)]
pub(super) struct PartAudit {
    /// Its URL or path.
    pub file: String,
    /// Its path below the day's folder.
    pub name: String,
    /// Its path in the store.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of all bytes, of an object.
    pub crc32: Option<u32>,
    /// What its footer says, if a job of the dataset wrote it.
    pub footer: Option<PartFooter>,
    /// Its rows, and their checksum.
    pub rows: u64,
    pub checksum: u64,
    /// Nulls by column of the reduced rows.
    pub nulls: Vec<u64>,
    /// All rows were read.
    pub is_complete: bool,
    /// What is wrong with it by itself.
    pub faults: Vec<String>,
}

/// The day that most of the part files belong to, or the published one.
fn reference<'a>(parts: &'a [PartAudit], manifest: Option<&Manifest>) -> Option<&'a DayFooter> {
    let mut counts: Vec<(&DayFooter, usize)> = vec![];
    for footer in parts.iter().filter_map(|part| part.footer.as_ref()) {
        match counts.iter_mut().find(|(day, _)| *day == &footer.day) {
            Some((_, count)) => *count += 1,
            None => counts.push((&footer.day, 1)),
        }
    }
    let published = |day: &DayFooter| manifest.is_some_and(|manifest| manifest.job == day.job);
    // The first of several that are equally frequent, so that the result does not depend on anything else.
    let best = counts.iter().rev().max_by_key(|(day, count)| (published(day), *count));
    best.map(|(day, _)| *day)
}

/// Compares the part files of a day. `date` is that of the folder.
pub(super) fn of_parts(
    dataset: &dyn Dataset,
    date: &str,
    parts: &[PartAudit],
    manifest: Option<&Manifest>,
) -> Vec<Finding> {
    let mut findings = vec![];
    for part in parts {
        findings.extend(part.faults.iter().map(|fault| Finding::of_file(&part.file, fault)));
        if let Some(footer) = part.footer.as_ref().filter(|_| part.is_complete) {
            findings
                .extend(rows_of(part, footer).into_iter().map(|fault| Finding::of_file(&part.file, fault)));
        }
    }
    if let Some(day) = reference(parts, manifest) {
        findings.extend(of_identity(dataset, date, day).into_iter().map(Finding::of_day));
        findings.extend(of_membership(dataset, day, parts));
        findings.extend(of_sums(dataset, day, parts).into_iter().map(Finding::of_day));
    }
    if let Some(manifest) = manifest {
        findings.extend(of_manifest(manifest, parts));
    }
    findings
}

/// The rows of a file against its footer.
fn rows_of(part: &PartAudit, footer: &PartFooter) -> Vec<String> {
    let mut faults = vec![];
    if part.rows != footer.rows {
        let (rows, recorded) = (counted(part.rows, "row"), grouped(footer.rows));
        faults.push(format!("it has {rows}, and its footer says {recorded}"));
    }
    if let Some(recorded) = footer.checksum.filter(|recorded| *recorded != part.checksum) {
        let (found, recorded) = (checksum_text(part.checksum), checksum_text(recorded));
        faults.push(format!(
            "a value was changed: its rows have the checksum {found}, and its footer says {recorded}"
        ));
    }
    faults
}

/// The day in the footers against the folder.
fn of_identity(dataset: &dyn Dataset, date: &str, day: &DayFooter) -> Vec<String> {
    let mut faults = vec![];
    if day.date != date {
        faults.push(format!("its files are those of the day {}", day.date));
    }
    if day.dataset != dataset.name() {
        faults.push(format!("its files are those of the dataset {}", day.dataset));
    }
    faults
}

/// How the figures of a day differ from those of the other files.
fn day_difference(dataset: &dyn Dataset, mine: &DayFooter, others: &DayFooter) -> String {
    if mine.job != others.job {
        return format!("foreign file: job {} wrote it, and job {} the others", mine.job, others.job);
    }
    let entries = |day: &DayFooter| {
        let footer = PartFooter { day: day.clone(), ..PartFooter::default() };
        footer.entries(dataset).into_iter().collect::<BTreeMap<_, _>>()
    };
    let (mine, others) = (entries(mine), entries(others));
    let absent = || "nothing".to_string();
    let keys = mine.keys().chain(others.keys()).collect::<std::collections::BTreeSet<_>>();
    let differs = |key: &&String| mine.get(*key) != others.get(*key);
    let texts = keys.into_iter().filter(differs).map(|key| {
        let of = |entries: &BTreeMap<String, String>| entries.get(key).cloned().unwrap_or_else(absent);
        format!("its footer says {key} is {}, and those of the other files say {}", of(&mine), of(&others))
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// The number in the name of a part file of a job, for example 3 in `part-00003-JOB.snappy.parquet`; in stores the job is
/// followed by the number of the attempt.
fn number_of(name: &str, job: &str) -> Option<u64> {
    let (number, rest) = name.strip_prefix("part-")?.split_once('-')?;
    let rest = rest.strip_prefix(job)?.strip_suffix(".snappy.parquet")?;
    let attempt = rest.strip_prefix('-').unwrap_or(if rest.is_empty() { "0" } else { "" });
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(number) && is_number(attempt)).then(|| number.parse().ok())?
}

/// How the folder that a file is in differs from the one in its footer. The rows of a folder are those of one sample, for
/// example, so a file that was moved has become wrong.
fn misplaced(part: &PartAudit) -> Option<String> {
    let footer = part.footer.as_ref()?;
    let found = part.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let recorded = footer.folder.as_deref().unwrap_or_default();
    let place = |folder: &str| if folder.is_empty() { "the day's folder".to_string() } else { folder.into() };
    let differs = || format!("it is in {}, and its footer says {}", place(found), place(recorded));
    (found != recorded).then(differs)
}

/// Foreign files, files that occur twice, and missing ones.
fn of_membership(dataset: &dyn Dataset, day: &DayFooter, parts: &[PartAudit]) -> Vec<Finding> {
    let mut findings = vec![];
    let mut numbers: BTreeMap<u64, &str> = BTreeMap::new();
    for part in parts {
        match &part.footer {
            Some(footer) if footer.day != *day => {
                findings.push(Finding::of_file(&part.file, day_difference(dataset, &footer.day, day)));
            }
            _ => {}
        }
        if let Some(problem) = misplaced(part) {
            findings.push(Finding::of_file(&part.file, problem));
        }
        let name = part.name.rsplit('/').next().unwrap_or_default();
        let Some(number) = number_of(name, &day.job) else {
            let problem = format!("foreign file: its name is not that of a part file of job {}", day.job);
            findings.push(Finding::of_file(&part.file, problem));
            continue;
        };
        if let Some(other) = numbers.insert(number, &part.file) {
            let problem = format!("foreign file: {other} is part file {number}, too");
            findings.push(Finding::of_file(&part.file, problem));
        }
    }
    let after_last = numbers.last_key_value().map_or(0, |(last, _)| last + 1);
    let files = day.files.unwrap_or(after_last);
    let beyond = numbers.range(files..);
    findings.extend(beyond.map(|(number, file)| {
        let files = counted(files, "file");
        Finding::of_file(file, format!("foreign file: part file {number} of a day of {files}"))
    }));
    let missing = (0..files).filter(|number| !numbers.contains_key(number)).take(MAX_MISSING);
    findings.extend(missing.map(|number| {
        let name = format!("part-{number:05}-{}", day.job);
        Finding::of_day(format!("missing file: {name} (part file {number} of {files}, from 0)"))
    }));
    findings
}

/// Missing files that are named.
const MAX_MISSING: usize = 20;

/// The sums over all files against the figures of the day.
fn of_sums(dataset: &dyn Dataset, day: &DayFooter, parts: &[PartAudit]) -> Vec<String> {
    let mut faults = vec![];
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    if rows != day.totals.rows {
        let (rows, recorded) = (counted(rows, "row"), grouped(day.totals.rows));
        faults.push(format!("its files have {rows}, and their footers say {recorded} for the day"));
    }
    if !parts.iter().all(|part| part.is_complete) {
        return faults;
    }
    let checksum = parts.iter().fold(0u64, |all, part| all.wrapping_add(part.checksum));
    if let Some(recorded) = day.checksum.filter(|recorded| *recorded != checksum) {
        let (found, recorded) = (checksum_text(checksum), checksum_text(recorded));
        faults
            .push(format!("its rows have the checksum {found}, and the footers say {recorded} for the day"));
    }
    if let Some(recorded) = &day.nulls {
        let schema = dataset.reduced_schema();
        for (at, (field, recorded)) in schema.fields().iter().zip(recorded).enumerate() {
            let nulls: u64 = parts.iter().filter_map(|part| part.nulls.get(at)).sum();
            if nulls != *recorded {
                let (name, nulls, recorded) = (field.name(), grouped(nulls), grouped(*recorded));
                faults.push(format!("{name} has {nulls} nulls, and the footers say {recorded} for the day"));
            }
        }
    }
    faults
}

/// The files against the record of the publish in an object store.
fn of_manifest(manifest: &Manifest, parts: &[PartAudit]) -> Vec<Finding> {
    let mut findings = vec![];
    let listed: BTreeMap<&str, &ManifestPart> =
        manifest.files.iter().map(|file| (file.key.as_str(), file)).collect();
    for part in parts {
        match listed.get(part.key.as_str()) {
            None => {
                let problem = format!("foreign file: job {} did not publish it", manifest.job);
                findings.push(Finding::of_file(&part.file, problem));
            }
            Some(recorded) => {
                let faults = against_manifest(part, recorded);
                findings.extend(faults.into_iter().map(|fault| Finding::of_file(&part.file, fault)));
            }
        }
    }
    let found = |key: &str| parts.iter().any(|part| part.key == key);
    let missing = listed.keys().filter(|key| !found(key)).take(MAX_MISSING);
    findings.extend(missing.map(|key| {
        Finding::of_day(format!("missing file: job {} published {key}, which does not exist", manifest.job))
    }));
    findings
}

fn against_manifest(part: &PartAudit, recorded: &ManifestPart) -> Vec<String> {
    let mut faults = vec![];
    let mut compare = |what: &str, found: String, recorded: String| {
        if found != recorded {
            faults.push(format!("{what} {found}, and the record of the publish says {recorded}"));
        }
    };
    compare("it has the size", part.bytes.to_string(), recorded.bytes.to_string());
    if let Some(crc32) = part.crc32 {
        compare("its bytes have the CRC-32", format!("{crc32:08x}"), format!("{:08x}", recorded.crc32));
    }
    if part.is_complete {
        compare("its number of rows is", part.rows.to_string(), recorded.rows.to_string());
        if let Some(checksum) = &recorded.checksum {
            compare("its rows have the checksum", checksum_text(part.checksum), checksum.clone());
        }
    }
    faults
}

#[cfg(test)]
mod tests;
