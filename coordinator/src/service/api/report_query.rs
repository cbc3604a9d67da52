//! The parameters of a request for a report: an output, a range of days, and the day that they are compared with.
//!
//! Not here: what a report contains (`objectives::report`).

use std::sync::Arc;

use chrono::NaiveDate;
use tally_dataset::{Dataset, registry};
use tonic::codegen::http::request::Parts;

use super::problem::Problem;
use super::query::Query;
use crate::job::{SpecError, canonical_url};

/// The maximum number of days of a report: a year. A report of the command can be longer.
const MAX_DAYS: usize = 366;

/// A report, as it is asked for.
pub(super) struct ReportQuery {
    pub(super) dataset: Arc<dyn Dataset>,
    /// The root of the output, in its canonical form.
    pub(super) output: String,
    /// The days in order, at least one.
    pub(super) dates: Vec<NaiveDate>,
    pub(super) baseline: NaiveDate,
}

impl ReportQuery {
    /// Reads the parameters of a request.
    pub(super) async fn of(parts: &Parts) -> Result<Self, Problem> {
        let query = Query::of(parts, &["dataset", "output", "from", "to", "baseline"])?;
        let unknown = |name: &str| Problem::invalid(SpecError::Dataset(name.into()).to_string());
        let dataset = match query.text("dataset") {
            Some(name) => registry::dataset(name).ok_or_else(|| unknown(name))?,
            None => registry::datasets().next().ok_or_else(|| Problem::missing("dataset"))?,
        };
        let output = query.text("output").ok_or_else(|| Problem::missing("output"))?.to_string();
        let first = query.date("from")?.ok_or_else(|| Problem::missing("from"))?;
        let last = query.date("to")?.ok_or_else(|| Problem::missing("to"))?;
        let dates: Vec<NaiveDate> =
            first.iter_days().take_while(|date| *date <= last).take(MAX_DAYS + 1).collect();
        if dates.is_empty() {
            return Err(Problem::invalid("the range ends before it begins: from is after to".into()));
        }
        if dates.len() > MAX_DAYS {
            return Err(Problem::invalid(format!(
                "the range has more than {MAX_DAYS} days: ask for less at a time"
            )));
        }
        // Resolving paths blocks.
        let output = tokio::task::spawn_blocking(move || canonical_url(&output)).await;
        let output = output
            .map_err(|error| Problem::failed(error.to_string()))?
            .map_err(|error| Problem::invalid(format!("output: {error}")))?;
        Ok(ReportQuery { dataset, output, baseline: query.date("baseline")?.unwrap_or(first), dates })
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http;

    use super::*;

    async fn of(query: &str) -> Result<ReportQuery, String> {
        let uri = format!("/api/v1/objectives?{query}");
        let (parts, ()) = http::Request::builder().uri(uri).body(()).unwrap().into_parts();
        ReportQuery::of(&parts).await.map_err(|problem| problem.message().to_string())
    }

    #[tokio::test]
    async fn a_range_has_both_ends_and_its_first_day_is_the_baseline() {
        let query = of("output=s3://bucket/a/&from=20170227&to=20170301").await.unwrap();
        assert_eq!((query.dataset.name(), query.output.as_str()), ("addon_aggregates", "s3://bucket/a"));
        assert_eq!((query.dates.len(), query.baseline), (3, query.dates[0]));
        let query = of("output=/o&from=20160101&to=20161231&baseline=20151231").await.unwrap();
        assert_eq!(query.dates.len(), MAX_DAYS);
        assert_eq!(query.baseline.to_string(), "2015-12-31");
    }

    #[tokio::test]
    async fn invalid_parameters_are_refused_with_what_is_wrong() {
        let refused = async |query: &str, words: &str| {
            let error = of(query).await.err().unwrap();
            assert!(error.contains(words), "{query}: {error}");
        };
        refused("from=20170227&to=20170227", "output: the parameter is missing").await;
        refused("output=/o&to=20170227", "from: the parameter is missing").await;
        refused("output=/o&from=20170228&to=20170227", "from is after to").await;
        refused("output=/o&from=20160101&to=20170101", "more than 366 days").await;
        refused("output=/o&from=2017-02-27&to=20170227", "from: write YYYYMMDD").await;
        refused("output=o&from=20170227&to=20170227", "neither an absolute path nor a URL").await;
        refused("output=/o&from=20170227&to=20170227&dataset=none", "there is no dataset \"none\"").await;
        let secret = of("output=s3://user:pass0word@b/o&from=20170227&to=20170227").await.err().unwrap();
        assert!(!secret.contains("pass0word"), "{secret}");
    }
}
