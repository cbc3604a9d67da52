//! The expected rows of a folder, by the documented rules, with sets and maps of the standard library.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tally_dataset::Width;

use crate::days::Text;
use crate::pings::{AddonsPing, Element, Folder};

/// The four columns of a group's key, the five sums, the two dates.
pub type GroupRow = ([Text; 4], [i64; 5], [Text; 2]);

/// The sorted rows, and the number of clients.
pub fn groups(folder: &Folder) -> (Vec<GroupRow>, u64) {
    // What is distinct: the ping's columns, the element's, and own, shield, system and web as numbers.
    type Identity = (Text, Option<i64>, Option<bool>, [bool; 4]);
    type Elements = BTreeSet<(Option<i64>, Identity)>;
    let mut all: BTreeMap<[Text; 4], Elements> = BTreeMap::new();
    let pilots: HashSet<&[u8]> = folder.pilots.iter().map(Vec::as_slice).collect();
    for ping in &folder.pings {
        for element in &ping.elements {
            let shield = element.addon.as_ref().is_some_and(|id| id.contains("@shield.mozilla"));
            let is_true = |flag| flag == Some(true);
            let marks = [is_own(element, &pilots), shield, is_true(element.system), is_true(element.web)];
            let identity = (element.addon.clone(), element.day, element.foreign, marks);
            all.entry(key(ping)).or_default().insert((ping.created, identity));
        }
    }
    let clients: HashSet<&Text> = all.keys().map(|key| &key[0]).collect();
    let clients = clients.len() as u64;
    let row = |(key, elements): (&[Text; 4], &Elements)| {
        let count = |counted: &dyn Fn(&Identity) -> bool| {
            elements.iter().filter(|(_, identity)| counted(identity)).count() as i64
        };
        let sums = [
            count(&|it| it.3[0]),
            count(&|it| it.3[1]),
            count(&|it| it.2 == Some(true)),
            count(&|it| it.3[2]),
            count(&|it| it.3[3]),
        ];
        let own =
            elements.iter().filter(|(_, identity)| identity.3[0]).filter_map(|(_, identity)| identity.1);
        let first = own.map(|day| day_text(day, folder.widths[0])).min();
        let created = elements.iter().filter_map(|(created, _)| *created).min();
        (key.clone(), sums, [first, created.map(|days| day_text(days, folder.widths[1]))])
    };
    (all.iter().map(row).collect(), clients)
}

fn key(ping: &AddonsPing) -> [Text; 4] {
    let version = ping.version.as_ref().map(|version| version.chars().take(2).collect());
    [ping.client.clone(), ping.channel.clone(), version, ping.locale.clone()]
}

fn is_own(element: &Element, pilots: &HashSet<&[u8]>) -> bool {
    let Some(id) = &element.addon else { return false };
    element.system == Some(false)
        && element.foreign == Some(false)
        && !["mozilla", "cliqz", "@unified-urlbar"].iter().any(|part| id.contains(part))
        && !pilots.contains(id.as_bytes())
}

/// The text of a day, year by year and month by month.
pub fn day_text(days: i64, width: Width) -> String {
    let seconds = match width {
        Width::W32 => i64::from((days as i32).wrapping_mul(86_400)),
        Width::W64 => days.wrapping_mul(86_400),
    };
    let mut days = seconds.wrapping_mul(1_000_000).div_euclid(86_400_000_000);
    let mut year = 1970 + days.div_euclid(146_097) * 400;
    days = days.rem_euclid(146_097);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let sign = if year < 0 {
        "-"
    } else if year > 9999 {
        "+"
    } else {
        ""
    };
    format!("{sign}{:04}{:02}{:02}", year.abs(), month + 1, days + 1)
}

/// The examples of the definition, which Spark computed.
#[test]
fn days_have_sparks_texts() {
    let narrow = [(-1, "19691231"), (24_856, "19011214"), (30_000, "19160114"), (49_711, "19700101")];
    narrow.iter().for_each(|&(days, text)| assert_eq!(day_text(days, Width::W32), text));
    assert_eq!(day_text(-24_856, Width::W32), "20380118");
    let wide = [
        (24_856, "20380120"),
        (106_751_991, "+2942470110"),
        (106_751_992, "-2903081222"),
        (2_932_897, "+100000101"),
        (-719_600, "-00011021"),
        (-719_469, "00000229"),
    ];
    wide.iter().for_each(|&(days, text)| assert_eq!(day_text(days, Width::W64), text));
}
