//! Which add-on ids can be self-installed, and which are of a Shield study.
//!
//! An id is excluded from the self-installed ones if it contains `mozilla`, `cliqz` or `@unified-urlbar`, or is one of the
//! Test Pilot's. All comparisons are bytewise. Not here: the other conditions on an element (`flags`).

use std::collections::HashSet;

/// The id that each list has, except the empty one.
const TEST_PILOT: &[u8] = b"@testpilot-addon";

/// An id is not self-installed, whatever its other fields are.
pub(super) const EXCLUDED: u32 = 1 << 1;
/// An id is of a Shield study.
pub(super) const SHIELD: u32 = 1;

/// The ids of the Test Pilot, from the lines of a file: `@testpilot-addon` and each line. Blank lines are skipped, others
/// are not trimmed. A file without ids is the empty list, as in the original's last version.
pub fn test_pilot_ids(text: &[u8]) -> Vec<Vec<u8>> {
    let is_blank = |line: &[u8]| String::from_utf8_lossy(line).trim().is_empty();
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !is_blank(line));
    let mut ids: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    if !ids.is_empty() && !ids.iter().any(|id| id == TEST_PILOT) {
        ids.insert(0, TEST_PILOT.to_vec());
    }
    ids
}

/// The ids without the option.
pub(super) fn default_ids() -> Vec<Vec<u8>> {
    vec![TEST_PILOT.to_vec()]
}

/// The ids of the Test Pilot.
pub(super) struct TestPilots(HashSet<Vec<u8>>);

impl TestPilots {
    pub(super) fn new(ids: &[Vec<u8>]) -> Self {
        TestPilots(ids.iter().cloned().collect())
    }

    /// [`EXCLUDED`] and [`SHIELD`] of an add-on id.
    pub(super) fn marks(&self, id: &[u8]) -> u32 {
        let mut marks = if self.0.contains(id) { EXCLUDED } else { 0 };
        for at in 0..id.len() {
            let rest = &id[at..];
            marks |= match rest[0] {
                b'm' if rest.starts_with(b"mozilla") => EXCLUDED,
                b'c' if rest.starts_with(b"cliqz") => EXCLUDED,
                b'@' if rest.starts_with(b"@unified-urlbar") => EXCLUDED,
                b'@' if rest.starts_with(b"@shield.mozilla") => SHIELD,
                _ => 0,
            };
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_lines_of_the_file_and_one_more_id() {
        let ids = |text: &str| -> Vec<String> {
            test_pilot_ids(text.as_bytes()).into_iter().map(|id| String::from_utf8(id).unwrap()).collect()
        };
        assert_eq!(ids("a@b\n\n \t\n c \r\nd"), ["@testpilot-addon", "a@b", " c ", "d"]);
        assert_eq!(ids("b\n@testpilot-addon\n"), ["b", "@testpilot-addon"]);
        assert!(ids("").is_empty() && ids("\n \r\n").is_empty());
        assert_eq!(test_pilot_ids(b"\xff\n"), [TEST_PILOT, b"\xff"]);
    }

    #[test]
    fn ids_are_compared_bytewise_on_the_whole_string() {
        let pilots = TestPilots::new(&[b"@testpilot-addon".to_vec(), b"a@b".to_vec()]);
        let both = EXCLUDED | SHIELD;
        let cases: [(&[u8], u32); 16] = [
            (b"", 0),
            (b"a@b", EXCLUDED),
            (b"a@b ", 0),
            (b"A@b", 0),
            (b"@testpilot-addon", EXCLUDED),
            (b"x@testpilot-addon", 0),
            (b"x@mozilla.org", EXCLUDED),
            (b"MOZILLA", 0),
            (b"mozill", 0),
            (b"momozilla", EXCLUDED),
            (b"a\ncliqz", EXCLUDED),
            (b"@unified-urlbar-shield", EXCLUDED),
            (b"study@shield.mozilla.org", both),
            (b"study@shieldxmozilla.org", EXCLUDED),
            (b"@@shield.mozilla", both),
            (b"@shield.mozill", 0),
        ];
        for (id, expect) in cases {
            assert_eq!(pilots.marks(id), expect, "{}", id.escape_ascii());
        }
    }
}
