//! The definition of `addon_aggregates_v2` as a chain of relational steps over vectors, one function per step, with linear
//! search for groups and distinct rows. It is slow on purpose: the code is too simple to have the errors of the engine.
//! Not here: Parquet, memory limits, speed.

use crate::day::OtherWidths;
use crate::pings_v2::{AddonV2, PingV2, Sampled};

/// The id of every list of Test Pilot ids, except the empty list.
pub const TEST_PILOT: &str = "@testpilot-addon";

/// One row of the output, with the sample of its folder. The order of the fields is that of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowV2 {
    pub sample: i64,
    pub client_id: Option<String>,
    pub normalized_channel: Option<String>,
    pub app_version: Option<String>,
    pub locale: Option<String>,
    /// Self-installed, shield, foreign, system, web.
    pub sums: [i64; 5],
    pub first_addon_install_date: Option<String>,
    pub profile_creation_date: Option<String>,
}

/// Rule 4: a row for each element, with what rules 5 to 7 make of it.
#[derive(Clone, Debug, PartialEq)]
struct Exploded {
    sample: i64,
    key: [Option<String>; 4],
    profile_creation_date: Option<i64>,
    addon_id: Option<String>,
    install_day: Option<i64>,
    /// As read.
    foreign_install: Option<bool>,
    own: bool,
    shield: bool,
    system: bool,
    web: bool,
}

/// Computes the rows of a day, sorted.
pub fn aggregate(pings: &[Sampled], widths: OtherWidths, test_pilots: &[String]) -> Vec<RowV2> {
    let mut rows = vec![];
    for sample in 0..100 {
        let mine = pings.iter().filter(|(other, _)| *other == Some(sample));
        let exploded = mine.flat_map(|(_, ping)| explode(sample, ping, test_pilots));
        let distinct = distinct(exploded);
        rows.extend(group(sample, &distinct, widths));
    }
    rows.sort();
    rows
}

fn explode(sample: i64, ping: &PingV2, test_pilots: &[String]) -> Vec<Exploded> {
    let version = ping.app_version.as_ref().map(|version| version.chars().take(2).collect());
    let key = [ping.client_id.clone(), ping.normalized_channel.clone(), version, ping.locale.clone()];
    let row = |element: &Option<AddonV2>| {
        let addon = element.clone().unwrap_or_default();
        Exploded {
            sample,
            key: key.clone(),
            profile_creation_date: ping.profile_creation_date,
            own: is_own(&addon, test_pilots),
            shield: contains(&addon, "@shield.mozilla"),
            system: addon.is_system == Some(true),
            web: addon.is_web_extension == Some(true),
            addon_id: addon.addon_id,
            install_day: addon.install_day,
            foreign_install: addon.foreign_install,
        }
    };
    ping.active_addons.iter().flatten().map(row).collect()
}

fn contains(addon: &AddonV2, part: &str) -> bool {
    addon.addon_id.as_ref().is_some_and(|id| id.contains(part))
}

/// Rule 6.
fn is_own(addon: &AddonV2, test_pilots: &[String]) -> bool {
    let excluded = |id: &String| test_pilots.iter().any(|pilot| pilot == id);
    addon.addon_id.as_ref().is_some_and(|id| !excluded(id))
        && addon.is_system == Some(false)
        && addon.foreign_install == Some(false)
        && !["mozilla", "cliqz", "@unified-urlbar"].iter().any(|part| contains(addon, part))
}

/// Rule 8; null equals null.
fn distinct(rows: impl Iterator<Item = Exploded>) -> Vec<Exploded> {
    let mut seen: Vec<Exploded> = vec![];
    for row in rows {
        if !seen.contains(&row) {
            seen.push(row);
        }
    }
    seen
}

/// Rules 9 to 11.
fn group(sample: i64, rows: &[Exploded], widths: OtherWidths) -> Vec<RowV2> {
    let mut keys: Vec<&[Option<String>; 4]> = vec![];
    for row in rows {
        if !keys.contains(&&row.key) {
            keys.push(&row.key);
        }
    }
    let one = |key: &&[Option<String>; 4]| {
        let mine = || rows.iter().filter(|row| row.key == **key);
        let count = |flag: fn(&Exploded) -> bool| mine().filter(|row| flag(row)).count() as i64;
        let days = mine().filter(|row| row.own).filter_map(|row| row.install_day);
        let created = mine().filter_map(|row| row.profile_creation_date).min();
        let [client_id, normalized_channel, app_version, locale] = (*key).clone();
        RowV2 {
            sample,
            client_id,
            normalized_channel,
            app_version,
            locale,
            sums: [
                count(|row| row.own),
                count(|row| row.shield),
                count(|row| row.foreign_install == Some(true)),
                count(|row| row.system),
                count(|row| row.web),
            ],
            first_addon_install_date: days.map(|day| day_text(day, widths.wide_days)).min(),
            profile_creation_date: created.map(|days| day_text(days, !widths.narrow_dates)),
        }
    };
    keys.iter().map(one).collect()
}

/// Rule 12, year by year and month by month.
pub fn day_text(days: i64, wide: bool) -> String {
    let wrapped = |value: i128, bits: u32| {
        let all = 1i128 << bits;
        (value + all / 2).rem_euclid(all) - all / 2
    };
    let seconds = wrapped(i128::from(days) * 86_400, if wide { 64 } else { 32 });
    let micros = wrapped(seconds * 1_000_000, 64);
    let mut days = micros.div_euclid(86_400_000_000);
    let (mut year, mut month) = (1970i64, 0);
    let length = |year: i64| {
        let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
        if leap { 366 } else { 365 }
    };
    while days < 0 {
        year -= 1;
        days += length(year);
    }
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let months = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    let sign = match year {
        ..0 => "-",
        10_000.. => "+",
        _ => "",
    };
    format!("{sign}{:04}{:02}{:02}", year.abs(), month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the definition, which Spark computed.
    #[test]
    fn days_have_the_texts_of_spark() {
        let narrow = [(-1, "19691231"), (24_856, "19011214"), (30_000, "19160114"), (49_711, "19700101")];
        narrow.iter().for_each(|&(days, text)| assert_eq!(day_text(days, false), text));
        assert_eq!(day_text(-24_856, false), "20380118");
        let wide = [
            (24_856, "20380120"),
            (106_751_991, "+2942470110"),
            (106_751_992, "-2903081222"),
            (2_932_897, "+100000101"),
            (-719_600, "-00011021"),
            (-719_469, "00000229"),
        ];
        wide.iter().for_each(|&(days, text)| assert_eq!(day_text(days, true), text));
    }

    fn own(id: &str) -> AddonV2 {
        AddonV2 {
            addon_id: Some(id.into()),
            foreign_install: Some(false),
            is_system: Some(false),
            is_web_extension: Some(false),
            install_day: Some(17_000),
        }
    }

    /// The sums of the only group of a ping with these elements.
    fn sums(elements: &[AddonV2]) -> [i64; 5] {
        let elements = elements.iter().cloned().map(Some).collect();
        let ping = PingV2 { active_addons: Some(elements), ..PingV2::default() };
        let rows = aggregate(&[(Some(7), ping)], OtherWidths::default(), &[TEST_PILOT.into()]);
        assert_eq!(rows.len(), 1);
        rows[0].sums
    }

    #[test]
    fn what_is_nearly_equal_counts_as_the_definition_says() {
        let plain = own("a@b");
        assert_eq!(sums(&[plain.clone(), plain.clone()]), [1, 0, 0, 0, 0]);
        let web = AddonV2 { is_web_extension: Some(true), ..plain.clone() };
        assert_eq!(sums(&[plain.clone(), web]), [2, 0, 0, 0, 1]);
        let unknown = AddonV2 { is_web_extension: None, ..plain.clone() };
        assert_eq!(sums(&[plain.clone(), unknown]), [1, 0, 0, 0, 0]);
        let unknown = AddonV2 { is_system: None, ..plain.clone() };
        assert_eq!(sums(&[plain.clone(), unknown]), [1, 0, 0, 0, 0]);
        let shield = own("s@shield.mozilla.org");
        let unknown = AddonV2 { foreign_install: None, ..shield.clone() };
        assert_eq!(sums(&[shield, unknown]), [0, 2, 0, 0, 0]);
        assert_eq!(sums(&[own(TEST_PILOT), own("x@mozilla"), own("")]), [1, 0, 0, 0, 0]);
    }
}
