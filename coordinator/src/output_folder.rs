//! The folders within a day of the output, for datasets that have them: their names, and the folder of a part file.
//!
//! Not here: which rows are in which folder (the partitions of the shuffle), the folder of the day itself (`job`).

use tally_dataset::FolderSpec;

/// The name of a folder, for example `sample_id=7`.
pub fn folder_name(folders: &FolderSpec, number: u32) -> String {
    format!("{}={number}", folders.column)
}

/// The value of the folder within the day `day_folder` that a file is in, by its path; `None` if it is in no such folder.
/// Programs may write 7 as `07`.
pub fn folder_value(folders: &FolderSpec, path: &str, day_folder: &str) -> Option<u32> {
    let (above, _) = path.rsplit_once('/')?;
    let mut within = above.rsplit('/').take_while(|name| !name.eq_ignore_ascii_case(day_folder));
    within.find_map(|name| {
        let (column, value) = name.split_once('=')?;
        value.parse().ok().filter(|_| column == folders.column)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: FolderSpec = FolderSpec { column: "sample_id", count: 100 };

    #[test]
    fn a_file_is_in_the_folder_of_its_path() {
        assert_eq!(folder_name(&SAMPLES, 7), "sample_id=7");
        let value = |below: &str| {
            let path = format!("b/sample_id=3/submission_date_s3=20170227/{below}");
            folder_value(&SAMPLES, &path, "submission_date_s3=20170227")
        };
        assert_eq!((value("sample_id=7/x"), value("sample_id=07/y/x")), (Some(7), Some(7)));
        for other in ["x", "sample_id=7", "sample=7/x", "sample_id=a/x", "sample_id=-7/x"] {
            assert_eq!(value(other), None, "{other}");
        }
        assert_eq!(folder_value(&SAMPLES, "day/sample_id=7/x", "link"), Some(7));
    }
}
