//! The texts of expectations, and days that meet them or not. Not here: the reading of the previous day.

use tally_dataset::addon_aggregates::AddonAggregates;

use super::*;

fn parse(text: &str) -> Expectation {
    text.parse().unwrap()
}

fn figures(rows: u64, clients: u64, nulls: Option<&[u64]>) -> DayFigures {
    let totals = Totals { rows, counters: vec![clients, 1] };
    DayFigures::new(&AddonAggregates::new(), &totals, Some(2), nulls).unwrap()
}

#[test]
fn expectations_are_read_in_any_spacing() {
    for text in ["rows >= 0.8 * previous", "rows>=0.8*previous", " rows >=previous * 0.8 "] {
        let Expectation { metric, comparison, bound, .. } = parse(text);
        assert_eq!((metric, comparison, bound), (Metric::Rows, Comparison::AtLeast, Bound::Previous(0.8)));
    }
    assert_eq!(parse("files < previous").bound, Bound::Previous(1.0));
    let share = parse("null_share( foreign_install ) <= 1e-2");
    assert_eq!(share.metric, Metric::NullShare("foreign_install".into()));
    assert_eq!((share.comparison, share.bound), (Comparison::AtMost, Bound::Number(0.01)));
    assert_eq!(parse("n_clients == 5").comparison, Comparison::Equal);
    assert_eq!(parse("n_clients > 5").to_string(), "n_clients > 5");
    for bad in [
        "",
        "rows",
        "rows >=",
        ">= 5",
        "rows => 5",
        "rows = 5",
        "rows != 5",
        "rows >= 0.8 previous",
        "rows >= 0.8 * next",
        "rows >= 1 * 2",
        "rows >= nan",
        "rows >= inf",
        "null_share() < 1",
        "null_share(x < 1",
        "rows + files > 1",
    ] {
        assert_eq!(bad.parse::<Expectation>(), Err(ExpectationError::Form), "{bad}");
    }
    let long = format!("rows >= {}", "1".repeat(MAX_BYTES));
    assert_eq!(long.parse::<Expectation>(), Err(ExpectationError::TooLong));
}

#[test]
fn figures_and_columns_are_those_of_the_dataset() {
    let check = |text: &str| parse(text).check_names(&AddonAggregates::new()).map_err(|e| e.to_string());
    for good in ["rows > 0", "files > 0", "n_clients > 0", "null_share(n_clients) == 0"] {
        assert_eq!(check(good), Ok(()));
    }
    let error = check("clients > 0").unwrap_err();
    assert!(error.contains("rows, files, n_clients, n_custom_theme_clients and null_share"), "{error}");
    let error = check("null_share(addon_id) < 1").unwrap_err();
    assert!(error.contains("no column \"addon_id\"; its columns are client_id, "), "{error}");
}

#[test]
fn a_day_is_compared_with_numbers_and_with_the_day_before() {
    let verdict = |text: &str, previous: &Previous| {
        let day = figures(80, 5, Some(&[0, 20, 0, 0, 0, 0, 0]));
        check(&[parse(text)], &day, previous)
    };
    let before = Previous::Day("20170226".into(), figures(100, 4, None));
    let meets = |text: &str| assert_eq!(verdict(text, &before), Verdict::default(), "{text}");
    meets("rows >= 0.8 * previous");
    meets("rows < 1 * previous");
    meets("n_clients <= 1.25 * previous");
    meets("files == previous");
    meets("null_share(foreign_install) <= 0.25");
    meets("null_share(n_clients) == 0");
    let unmet = |text: &str, expect: &str| {
        assert_eq!(verdict(text, &before).unmet, [format!("`{text}`: {expect}")]);
    };
    unmet("rows >= 0.81 * previous", "rows is 80, and the limit is 81 (100 on 20170226)");
    unmet("n_clients > 5", "n_clients is 5, and the limit is 5");
    let share = "null_share(foreign_install) is 0.25, and the limit is 0.01";
    unmet("null_share(foreign_install) <= 0.01", share);
}

#[test]
fn without_figures_of_the_day_before_an_expectation_holds_and_says_so() {
    let day = figures(80, 5, None);
    let check = |text: &str, previous: &Previous| check(&[parse(text)], &day, previous);
    let notes = check("rows >= previous", &Previous::None).notes;
    assert_eq!(notes, ["the expectation `rows >= previous` holds: there is no earlier day"]);
    let other = check("rows >= previous", &Previous::WithoutFigures("20170226".into()));
    assert!(other.unmet.is_empty() && other.notes[0].contains("of 20170226 do not have rows"));
    // The figures of the day itself have to be known.
    let unknown = check("null_share(user_type) < 1", &Previous::None);
    assert!(unknown.unmet[0].contains("is not known"), "{unknown:?}");
}
