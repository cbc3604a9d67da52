//! The examples in the help of commands. A test runs each of them (`tests/tests/examples.rs`).
//!
//! Not here: the examples of commands that have more to explain, which are beside their options.

pub(crate) const RUN: &str = "Examples:
  A day of two local tables:
    tally run --addons day/addons/v2 --main-summary day/main_summary/v3 --output out --date 20170227
  With less memory, and the summary as JSON:
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=out
    tally run --date 20170227 --memory-limit 512MiB --output-format json

It writes the file of --ready-marker. It sends no notices to a webhook or to OpenLineage: only coordinators do. Its exit code \
tells whether the day is published.";

pub(crate) const COORDINATOR: &str = "Examples:
  A coordinator on this machine, with its journal in the folder state:
    tally coordinator --listen localhost:7070 --state-dir state";

pub(crate) const DEMO: &str = "Examples:
  A day of 50,000 clients in a new folder:
    tally demo
  A smaller day on a cluster, whose workers have access to the folder; the files are removed at the end:
    tally demo --clients 1000 --cluster --coordinator localhost:7070 --dir demo --remove";

pub(crate) const SUBMIT: &str = "Examples:
  Submit a day and wait for its end:
    export TALLY_COORDINATOR=localhost:7070
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=out
    tally submit --date 20170227 --timeout 1h
  Submit it without waiting, and print the job's id:
    tally submit --date 20170227 --detach";

pub(crate) const JOBS: &str = "Examples:
  All jobs, newest first:
    tally jobs --coordinator localhost:7070
  As JSON:
    tally jobs --coordinator localhost:7070 --output-format json";

pub(crate) const TOP: &str = "Examples:
  Jobs and workers of a cluster, until `q`; `?` shows the keys:
    tally top --coordinator localhost:7070
  Without colours:
    NO_COLOR=1 tally top --coordinator localhost:7070

Without a terminal, use `tally jobs --watch` or `tally job ID --watch`.";

pub(crate) const JOB: &str = "Examples:
  A job, by the id that `tally submit` and `tally jobs` print:
    tally job \"$JOB\" --coordinator localhost:7070";

pub(crate) const LOGS: &str = "Examples:
  The events of a job:
    tally logs \"$JOB\" --coordinator localhost:7070
  Those of the newest job, until it ends:
    tally logs latest --follow --coordinator localhost:7070";

pub(crate) const WAIT: &str = "Examples:
  Wait for the end of the newest job, at most an hour:
    tally wait latest --timeout 1h --coordinator localhost:7070";

pub(crate) const CANCEL: &str = "Examples:
  Submit a job, and cancel it:
    export TALLY_COORDINATOR=localhost:7070
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=out
    job=$(tally submit --date 20170227 --detach)
    tally cancel \"$job\"";

pub(crate) const GC: &str = "Examples:
  Show what would be removed:
    tally gc --output s3://bucket/aggregates --dry-run
  Remove what is older than two days:
    tally gc --output s3://bucket/aggregates --older-than 48h";

pub(crate) const WORKERS: &str = "Examples:
  All workers of a cluster:
    tally workers --coordinator localhost:7070";

pub(crate) const DRAIN: &str = "Examples:
  Remove a worker, by the id that `tally workers` prints, without losing its work:
    tally worker drain \"$WORKER\" --coordinator localhost:7070";
