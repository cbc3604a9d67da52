//! The body of a request that submits a job: the settings of `tally submit` as JSON. Anything that the API does not know is
//! refused, so that a misspelled setting is not ignored.
//!
//! Not here: which jobs are accepted (`crate::job`, the driver).

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use serde::Deserialize;
use tally_dataset::registry;
use tally_proto::v1;
use tokio::time::timeout;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::request::Parts;

use super::problem::Problem;
use crate::job::{DEFAULT_TARGET_FILE_SIZE, SpecError};

/// The maximum size of a body, in bytes: the largest options of a dataset in base64, and the other settings.
const MAX_BODY: usize = 2 << 20;
/// The bytes of a body that is too large after which the connection is closed.
const MAX_READ: usize = 16 << 20;
/// The time limit for the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The media type of the body. Other sites cannot make a browser send it.
const JSON: &str = "application/json";

/// A job, as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubmissionBody {
    /// The first dataset if it is not given.
    dataset: Option<String>,
    date: String,
    /// URLs by the names of tables.
    tables: BTreeMap<String, String>,
    output: String,
    /// Contents in base64, by name.
    #[serde(default)]
    dataset_options: BTreeMap<String, String>,
    target_file_size: Option<u64>,
    #[serde(default)]
    expectations: Vec<String>,
    ready_marker: Option<String>,
}

/// The bytes of a body. More than the maximum is read without being kept: a client that still sends would not read the answer.
async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let (mut parts, mut bytes, mut length) = (body.into_data_stream(), vec![], 0);
    while let Some(part) = parts.next().await {
        // The connection broke, so that no answer is read.
        let part = part.map_err(|error| Problem::invalid(format!("body: {error}")))?;
        length += part.len();
        if length > MAX_READ {
            break;
        }
        match length > MAX_BODY {
            false => bytes.extend_from_slice(&part),
            true => bytes.clear(),
        }
    }
    match length {
        ..=MAX_BODY => Ok(bytes),
        _ => Err(Problem::too_large(format!("the body has more than {} KiB", MAX_BODY >> 10))),
    }
}

impl SubmissionBody {
    /// Reads a body, up to its maximum size.
    pub(super) async fn read(parts: &Parts, body: Body) -> Result<Self, Problem> {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
            return Err(Problem::media_type(format!(
                "the body must be JSON: send the header content-type: {JSON}"
            )));
        }
        let bytes = match timeout(BODY_TIMEOUT, collect(body)).await {
            Ok(bytes) => bytes?,
            Err(_) => {
                let limit = BODY_TIMEOUT.as_secs();
                return Err(Problem::invalid(format!("the body did not arrive within {limit} s")));
            }
        };
        serde_json::from_slice(&bytes).map_err(|error| Problem::invalid(format!("body: {error}")))
    }

    /// The job as commands submit it.
    pub(super) fn spec(self) -> Result<v1::JobSpec, Problem> {
        let named = |name: String| match registry::dataset(&name) {
            Some(dataset) => Ok(dataset),
            None => Err(Problem::invalid(SpecError::Dataset(name).to_string())),
        };
        let dataset = match self.dataset {
            Some(name) => named(name)?,
            None => {
                registry::datasets().next().ok_or_else(|| Problem::invalid("dataset: give one".into()))?
            }
        };
        let names: Vec<_> = dataset.tables().iter().map(|table| table.name).collect();
        let mut tables = self.tables;
        if let Some(unknown) = tables.keys().find(|name| !names.contains(&name.as_str())) {
            let (name, names) = (dataset.name(), names.join(", "));
            return Err(Problem::invalid(format!(
                "tables: {name} has no table {unknown:.40}; its tables are: {names}"
            )));
        }
        let root = |name: &&str| {
            let missing = || Problem::invalid(format!("tables: the root of the table {name} is missing"));
            tables.remove(*name).ok_or_else(missing)
        };
        let inputs = names.iter().map(root).collect::<Result<_, _>>()?;
        let option = |(name, content): (String, String)| match STANDARD.decode(content) {
            Ok(content) => Ok(v1::DatasetOption { name, content, ..v1::DatasetOption::default() }),
            Err(_) => Err(Problem::invalid(format!("dataset_options: {name:.40} is not base64"))),
        };
        Ok(v1::JobSpec {
            dataset: dataset.name().into(),
            date: self.date,
            inputs,
            output: self.output,
            target_file_size: self.target_file_size.unwrap_or(DEFAULT_TARGET_FILE_SIZE),
            expectations: self.expectations,
            ready_marker: self.ready_marker,
            options: self.dataset_options.into_iter().map(option).collect::<Result<_, _>>()?,
            ..v1::JobSpec::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http;

    use super::*;

    async fn read(kind: &str, body: impl Into<Body>) -> Result<v1::JobSpec, String> {
        let (parts, ()) =
            http::Request::builder().header("content-type", kind).body(()).unwrap().into_parts();
        let body = SubmissionBody::read(&parts, body.into()).await;
        body.and_then(SubmissionBody::spec).map_err(|problem| problem.message().to_string())
    }

    const SMALL: &str = r#"{"date":"20170227","tables":{"main_summary":"/m","addons":"/a"},"output":"/o""#;

    #[tokio::test]
    async fn a_body_has_the_settings_of_a_submission_and_their_defaults() {
        let small = read("application/json", format!("{SMALL}}}")).await.unwrap();
        assert_eq!((small.dataset.as_str(), small.date.as_str()), ("addon_aggregates", "20170227"));
        assert_eq!((small.inputs, small.output.as_str()), (vec!["/a".to_string(), "/m".into()], "/o"));
        assert_eq!(small.target_file_size, DEFAULT_TARGET_FILE_SIZE);
        assert!(small.ready_marker.is_none() && small.options.is_empty() && small.expectations.is_empty());
        let more = r#","dataset":"addon_aggregates","target_file_size":7,"expectations":["rows > 1"],
            "ready_marker":"_SUCCESS","dataset_options":{"list":"AP8="}}"#;
        let kind = "Application/JSON; charset=utf-8";
        let full = read(kind, format!("{SMALL}{more}")).await.unwrap();
        assert_eq!((full.dataset.as_str(), full.target_file_size), ("addon_aggregates", 7));
        assert_eq!(
            (full.expectations, full.ready_marker),
            (vec!["rows > 1".into()], Some("_SUCCESS".into()))
        );
        assert_eq!((full.options[0].name.as_str(), &full.options[0].content[..]), ("list", &[0, 255][..]));
    }

    #[tokio::test]
    async fn an_invalid_body_is_refused_with_what_is_wrong() {
        let refused = async |body: &str, words: &str| {
            let error = read("application/json", body.to_string()).await.unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        };
        refused("", "body: EOF").await;
        refused("[1]", "body: ").await;
        refused(r#"{"tables":{},"output":"/o"}"#, "missing field `date`").await;
        refused(&format!("{SMALL},\"expect\":[]}}"), "unknown field `expect`").await;
        refused(&format!("{SMALL},\"dataset\":\"none\"}}"), "there is no dataset \"none\"").await;
        refused(&format!("{SMALL},\"target_file_size\":-1}}"), "body: ").await;
        refused(&format!("{SMALL},\"dataset_options\":{{\"list\":\"?\"}}}}"), "list is not base64").await;
        let tables = r#"{"date":"20170227","output":"/o","tables":"#;
        refused(&format!("{tables}{{\"addons\":\"/a\"}}}}"), "the root of the table main_summary is missing")
            .await;
        refused(&format!("{tables}{{\"addon\":\"/a\"}}}}"), "its tables are: addons, main_summary").await;
        let kind = read("text/plain", "{}").await.unwrap_err();
        assert!(kind.contains("content-type: application/json"), "{kind}");
    }

    #[tokio::test]
    async fn a_body_is_limited() {
        let body = |bytes: usize| format!("{SMALL}}}{}", " ".repeat(bytes - SMALL.len() - 1));
        assert!(read("application/json", body(MAX_BODY)).await.is_ok());
        let error = read("application/json", body(MAX_BODY + 1)).await.unwrap_err();
        assert_eq!(error, "the body has more than 2048 KiB");
    }
}
