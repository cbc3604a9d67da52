//! Days with one thing wrong each. Not here: the reading of files.

use tally_dataset::Totals;
use tally_dataset::addon_aggregates::AddonAggregates;

use super::*;

const JOB: &str = "20170227-1a203b13e4c-6eeb-0";

fn part(number: u64) -> PartAudit {
    let day = DayFooter {
        job: JOB.into(),
        version: "0.1.0".into(),
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        totals: Totals { rows: 6, counters: vec![5, 2] },
        files: Some(3),
        checksum: Some(3 + 300),
        nulls: Some(vec![0, 3, 0, 0, 0, 0, 0]),
        objectives: None,
    };
    let checksum = number * 100 + 1;
    let name = format!("part-{number:05}-{JOB}.snappy.parquet");
    PartAudit {
        file: format!("/out/{name}"),
        key: format!("out/{name}"),
        name,
        bytes: 50,
        crc32: None,
        footer: Some(PartFooter { rows: 2, checksum: Some(checksum), folder: None, day }),
        rows: 2,
        checksum,
        nulls: vec![0, 1, 0, 0, 0, 0, 0],
        is_complete: true,
        faults: vec![],
    }
}

fn good() -> Vec<PartAudit> {
    (0..3).map(part).collect()
}

fn check(parts: &[PartAudit], manifest: Option<&Manifest>, expect: &[(Option<usize>, &str)]) {
    let findings = of_parts(&AddonAggregates::new(), "20170227", parts, manifest);
    assert_eq!(findings.len(), expect.len(), "{findings:#?}");
    for ((file, words), finding) in expect.iter().zip(&findings) {
        assert_eq!(finding.file, file.map(|at| parts[at].file.clone()), "{findings:#?}");
        assert!(finding.problem.contains(words), "{words}: {findings:#?}");
    }
}

fn day_of(part: &mut PartAudit) -> &mut DayFooter {
    &mut part.footer.as_mut().unwrap().day
}

#[test]
fn a_good_day_has_no_findings() {
    check(&good(), None, &[]);
    let mut earlier = good();
    for part in &mut earlier {
        (day_of(part).files, day_of(part).nulls) = (None, None);
    }
    check(&earlier, None, &[]);
}

#[test]
fn a_changed_value_is_found_in_its_file_and_in_the_day() {
    let mut parts = good();
    parts[1].checksum += 1;
    let expect = [
        (Some(1), "the checksum 0000000000000066, and its footer says 0000000000000065"),
        (None, "for the day"),
    ];
    check(&parts, None, &expect);
    let mut parts = good();
    parts[2].nulls[1] = 2;
    check(&parts, None, &[(None, "foreign_install has 4 nulls, and the footers say 3")]);
}

#[test]
fn missing_and_foreign_files_are_named() {
    let mut parts = good();
    parts.pop();
    let rows = (None, "its files have 4 rows, and their footers say 6 for the day");
    let checksum = (None, "the checksum 0000000000000066");
    let expect = [(None, "missing file: part-00002-"), rows, checksum, (None, "2 nulls")];
    check(&parts, None, &expect);
    // Without the number of files, the sums tell.
    for part in &mut parts {
        (day_of(part).files, day_of(part).nulls) = (None, None);
    }
    check(&parts, None, &[rows, checksum]);
    let mut parts = good();
    let mut other = part(2);
    day_of(&mut other).job = "20170227-2-2-0".into();
    other.name = other.name.replace(JOB, "20170227-2-2-0");
    other.file = other.file.replace(JOB, "20170227-2-2-0");
    parts.push(other);
    let expect = [
        (Some(3), "foreign file: job 20170227-2-2-0 wrote it"),
        (Some(3), "foreign file: its name is not"),
        (None, "its files have 8 rows"),
        (None, "checksum"),
        (None, "4 nulls"),
    ];
    check(&parts, None, &expect);
}

#[test]
fn a_file_in_another_folder_than_its_footer_says_is_found() {
    let mut parts = good();
    parts[0].name = format!("sample_id=1/{}", parts[0].name);
    parts[1].footer.as_mut().unwrap().folder = Some("sample_id=1".into());
    (parts[2].footer.as_mut().unwrap().folder, parts[2].name) =
        (Some("sample_id=2".into()), format!("sample_id=2/{}", parts[2].name));
    let expect = [
        (Some(0), "it is in sample_id=1, and its footer says the day's folder"),
        (Some(1), "it is in the day's folder, and its footer says sample_id=1"),
    ];
    check(&parts, None, &expect);
}

#[test]
fn a_changed_footer_is_found() {
    let mut parts = good();
    day_of(&mut parts[1]).totals.counters[0] = 6;
    let words = "its footer says tally.n_clients is 6, and those of the other files say 5";
    check(&parts, None, &[(Some(1), words)]);
    let mut parts = good();
    parts[0].footer.as_mut().unwrap().rows = 3;
    check(&parts, None, &[(Some(0), "it has 2 rows, and its footer says 3")]);
    let mut parts = good();
    parts.iter_mut().for_each(|part| day_of(part).date = "20170228".into());
    check(&parts, None, &[(None, "those of the day 20170228")]);
}

#[test]
fn objects_are_compared_with_the_record_of_their_publish() {
    let mut parts = good();
    parts.iter_mut().for_each(|part| part.crc32 = Some(7));
    let files = parts.iter().map(|part| ManifestPart {
        key: part.key.clone(),
        upload: String::new(),
        parts: vec![],
        bytes: 50,
        rows: 2,
        crc32: 7,
        checksum: Some(checksum_text(part.checksum)),
    });
    let manifest = Manifest { job: JOB.into(), files: files.collect(), ..Manifest::default() };
    check(&parts, Some(&manifest), &[]);
    let mut rewritten = parts.clone();
    (rewritten[0].bytes, rewritten[0].crc32) = (51, Some(8));
    let expect = [
        (Some(0), "it has the size 51, and the record of the publish says 50"),
        (Some(0), "the CRC-32 00000008, and the record of the publish says 00000007"),
    ];
    check(&rewritten, Some(&manifest), &expect);
    let mut other = manifest.clone();
    other.files[2].key += "x";
    let expect = [(Some(2), "did not publish it"), (None, "which does not exist")];
    check(&parts, Some(&other), &expect);
}

#[test]
fn names_of_part_files_have_number_and_job() {
    let name = |rest: &str| number_of(&format!("part-00012-{JOB}{rest}"), JOB);
    assert_eq!(name(".snappy.parquet"), Some(12));
    assert_eq!(name("-8193.snappy.parquet"), Some(12));
    for other in ["-x.snappy.parquet", "-.snappy.parquet", "1.snappy.parquet", ".parquet"] {
        assert_eq!(name(other), None, "{other}");
    }
    assert_eq!(number_of("part-x-j.snappy.parquet", "j"), None);
    assert_eq!(number_of("x=1/part-00000-j.snappy.parquet", "j"), None);
}
