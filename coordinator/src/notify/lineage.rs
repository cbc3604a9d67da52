//! Run events of OpenLineage for a job: START, and COMPLETE, FAIL or ABORT. Pure.
//!
//! The ids of runs are digests of the ids of jobs, so each coordinator sends the same event for a job. The events follow
//! version 2-0-2 of OpenLineage's schema, whose files are in `tests/deploy/openlineage`. Not here: names of tables
//! (`dataset_name`), sending (`delivery`).

use arrow_schema::{DataType, Schema};
use chrono::{Days, NaiveDate};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Map, Value, json};
use tally_dataset::{Dataset, dataset};
use tally_proto::v1;

use super::dataset_name::{DatasetName, dataset_name};
use super::queue::Moment;
use crate::dates::parse_date;
use crate::job::{STAGES, WRITE};
use crate::summary::Summary;
use crate::view;

/// The schema of events.
const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
/// The schemas of facets, below the folder of all of them.
const FACETS: &str = "https://openlineage.io/spec/facets";
/// The namespace of names that are URLs (RFC 9562, 6.6), in which the id of a run is a name.
const NAME_SPACE: [u8; 16] = *b"\x6b\xa7\xb8\x11\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8";

/// Settings of the events.
#[derive(Debug, Clone)]
pub struct Context {
    /// The namespace of jobs.
    pub namespace: String,
    /// The storage account of `az://` URLs.
    pub account: Option<String>,
}

/// The URI of this program, which has no page of its own.
fn producer() -> String {
    format!("urn:tally:{}", env!("CARGO_PKG_VERSION"))
}

/// The id of a job's run: the UUID of version 5 of `urn:tally:job:ID`.
pub fn run_id(job: &str) -> String {
    let named = [&NAME_SPACE[..], format!("urn:tally:job:{job}").as_bytes()].concat();
    let mut id = [0; 16];
    id.copy_from_slice(&digest(&SHA1_FOR_LEGACY_USE_ONLY, &named).as_ref()[..16]);
    id[6] = (id[6] & 0x0f) | 0x50;
    id[8] = (id[8] & 0x3f) | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A facet with the fields that every facet has; `schema` is its version and its name.
fn facet(schema: &str, fields: Value) -> Value {
    let (_, name) = schema.split_once('/').unwrap_or_default();
    let mut all = Map::new();
    all.insert("_producer".into(), producer().into());
    all.insert("_schemaURL".into(), format!("{FACETS}/{schema}.json#/$defs/{name}").into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

/// The type of an event, which is part of its key.
pub fn event_type(status: &v1::JobStatus, moment: Moment) -> &'static str {
    match (moment, status.state()) {
        (Moment::Start, _) => "START",
        (Moment::End, v1::JobState::Done) => "COMPLETE",
        (Moment::End, v1::JobState::Cancelled) => "ABORT",
        (Moment::End, _) => "FAIL",
    }
}

/// The event for a job; `None` for a job of another version whose specification cannot be read.
pub fn event(status: &v1::JobStatus, moment: Moment, context: &Context) -> Option<Value> {
    let spec = status.spec.as_ref()?;
    let dataset = dataset(&spec.dataset)?;
    let at = match moment {
        Moment::Start => status.submitted_at,
        Moment::End => status.ended_at,
    };
    let named = |url: &String| dataset_name(url, context.account.as_deref());
    let inputs = spec.inputs.iter().map(|url| {
        let DatasetName { namespace, name } = named(url);
        json!({ "namespace": namespace, "name": name })
    });
    Some(json!({
        "eventTime": view::time(at)?,
        "eventType": event_type(status, moment),
        "producer": producer(),
        "schemaURL": SCHEMA,
        "run": { "runId": run_id(&status.job), "facets": run_facets(status, moment, &spec.date) },
        "job": {
            "namespace": context.namespace,
            "name": spec.dataset,
            "facets": { "jobType": facet("2-0-4/JobTypeJobFacet", json!({
                "processingType": "BATCH",
                "integration": "TALLY",
                "jobType": "JOB",
            })) },
        },
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": [output(status, moment, named(&spec.output), &*dataset)],
    }))
}

fn run_facets(status: &v1::JobStatus, moment: Moment, date: &str) -> Value {
    let mut facets = Map::new();
    let engine = json!({ "name": "tally", "version": env!("CARGO_PKG_VERSION") });
    facets.insert("processing_engine".into(), facet("1-1-1/ProcessingEngineRunFacet", engine));
    if let Some(time) = parse_date(date).and_then(nominal_time) {
        facets.insert("nominalTime".into(), facet("1-0-1/NominalTimeRunFacet", time));
    }
    if event_type(status, moment) == "FAIL" {
        let error = json!({ "message": status.reason, "programmingLanguage": "RUST" });
        facets.insert("errorMessage".into(), facet("1-0-1/ErrorMessageRunFacet", error));
    }
    Value::Object(facets)
}

/// The day of the job, in UTC.
fn nominal_time(date: NaiveDate) -> Option<Value> {
    let next = date.checked_add_days(Days::new(1))?;
    let midnight = |date: NaiveDate| format!("{date}T00:00:00Z");
    Some(json!({ "nominalStartTime": midnight(date), "nominalEndTime": midnight(next) }))
}

fn output(status: &v1::JobStatus, moment: Moment, named: DatasetName, dataset: &dyn Dataset) -> Value {
    let fields = json!({ "fields": fields(&dataset.output_schema()) });
    let mut output = json!({
        "namespace": named.namespace,
        "name": named.name,
        "facets": { "schema": facet("1-2-0/SchemaDatasetFacet", fields) },
    });
    if event_type(status, moment) == "COMPLETE"
        && let Ok(summary) = serde_json::from_str::<Summary>(&status.summary)
    {
        let write = summary.stages.iter().filter(|stage| stage.name == STAGES[WRITE as usize]);
        let size: u64 = write.map(|stage| stage.bytes).sum();
        let counts = json!({ "rowCount": summary.rows, "size": size, "fileCount": summary.files });
        let statistics = facet("1-0-2/OutputStatisticsOutputDatasetFacet", counts);
        output["outputFacets"] = json!({ "outputStatistics": statistics });
    }
    output
}

/// The columns, with the types as the documentation names them.
fn fields(schema: &Schema) -> Vec<Value> {
    let fields = schema.fields().iter().zip(1u32..);
    let described = fields.map(|(field, position)| {
        let kind = match field.data_type() {
            DataType::Utf8 | DataType::Binary => "string".to_string(),
            DataType::Boolean => "boolean".to_string(),
            DataType::Int64 => "long".to_string(),
            DataType::Int32 => "integer".to_string(),
            other => other.to_string().to_ascii_lowercase(),
        };
        json!({ "name": field.name(), "type": kind, "ordinal_position": position })
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_jobs;

    fn context() -> Context {
        Context { namespace: "telemetry".into(), account: None }
    }

    fn status(state: v1::JobState) -> v1::JobStatus {
        let inputs = vec!["s3://b/addons/v2".into(), "/data/main".into()];
        let (date, output) = ("20161231".into(), "s3://b/agg".into());
        test_jobs::status(v1::JobSpec { date, inputs, output, ..test_jobs::asked() }, state)
    }

    #[test]
    fn a_run_id_is_the_uuid_of_the_job() {
        // Python's uuid.uuid5(uuid.NAMESPACE_URL, "urn:tally:job:20161231-1a-2b-0").
        assert_eq!(run_id("20161231-1a-2b-0"), "e2452a77-68e0-54b6-ba6b-a39991ca8772");
    }

    #[test]
    fn a_start_has_inputs_outputs_and_the_day() {
        let event = event(&status(v1::JobState::Running), Moment::Start, &context()).unwrap();
        assert_eq!(
            (&event["eventType"], &event["eventTime"]),
            (&json!("START"), &json!("2017-01-01T00:00:00.000Z"))
        );
        assert_eq!(event["run"]["runId"], run_id("20161231-1a-2b-0"));
        let nominal = &event["run"]["facets"]["nominalTime"];
        assert_eq!(nominal["nominalStartTime"], "2016-12-31T00:00:00Z");
        assert_eq!(nominal["nominalEndTime"], "2017-01-01T00:00:00Z");
        assert_eq!(
            nominal["_schemaURL"],
            "https://openlineage.io/spec/facets/1-0-1/NominalTimeRunFacet.json#/$defs/NominalTimeRunFacet"
        );
        assert_eq!(event["job"]["namespace"], "telemetry");
        assert_eq!(event["job"]["name"], "addon_aggregates");
        assert_eq!(event["inputs"][0], json!({ "namespace": "s3://b", "name": "addons/v2" }));
        assert_eq!(event["inputs"][1], json!({ "namespace": "file", "name": "/data/main" }));
        let output = &event["outputs"][0];
        assert_eq!((&output["namespace"], &output["name"]), (&json!("s3://b"), &json!("agg")));
        let first = json!({ "name": "client_id", "type": "string", "ordinal_position": 1 });
        assert_eq!(output["facets"]["schema"]["fields"][0], first);
        assert!(output.get("outputFacets").is_none() && event["run"]["facets"].get("errorMessage").is_none());
    }

    #[test]
    fn an_end_says_what_was_written_or_why_not() {
        let mut done = status(v1::JobState::Done);
        let stage = json!({ "name": "write", "bytes": 900 });
        done.summary = json!({ "rows": 70, "files": 2, "stages": [stage] }).to_string();
        let event = |status: &v1::JobStatus| event(status, Moment::End, &context()).unwrap();
        let complete = event(&done);
        assert_eq!(complete["eventType"], "COMPLETE");
        assert_eq!(complete["eventTime"], "2017-01-01T00:00:01.500Z");
        let counts = &complete["outputs"][0]["outputFacets"]["outputStatistics"];
        assert_eq!(
            (&counts["rowCount"], &counts["size"], &counts["fileCount"]),
            (&json!(70), &json!(900), &json!(2))
        );
        let failed = v1::JobStatus { reason: "no footer".into(), ..status(v1::JobState::Failed) };
        let fail = event(&failed);
        assert_eq!(fail["eventType"], "FAIL");
        assert_eq!(fail["run"]["facets"]["errorMessage"]["message"], "no footer");
        assert!(fail["outputs"][0].get("outputFacets").is_none());
        assert_eq!(event(&status(v1::JobState::Cancelled))["eventType"], "ABORT");
    }

    #[test]
    fn a_job_of_another_version_has_no_event() {
        let mut strange = status(v1::JobState::Done);
        strange.spec.as_mut().unwrap().dataset = "unknown".into();
        assert!(event(&strange, Moment::End, &context()).is_none());
        assert!(event(&v1::JobStatus::default(), Moment::Start, &context()).is_none());
    }
}
