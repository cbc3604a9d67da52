//! `tally submit`: submits a job to a cluster and waits for its end. Other commands that run jobs on a cluster use
//! [`run_there`].
//!
//! Not here: finding and following the leader (`tally_coordinator::client`).

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use chrono::Utc;
use clap::Args;
use tally_common::runtime::block_on;
use tally_common::signals::EndSignals;
use tally_coordinator::client::Client;
use tally_coordinator::summary::Summary;
use tally_proto::v1::{JobSpec, JobState, JobStatus, SubmitReply};
use tokio::time::{sleep, timeout};

use crate::connect::{ConnectArgs, runtime};
use crate::follow::Display;
use crate::job_args::JobArgs;
use crate::output::{OutputFormat, json, plain, say_published};
use crate::{EXIT_CODES, Stop, dates, duration, examples, say};

/// How long a cancelled job may take to end.
const CANCEL: Duration = Duration::from_secs(60);

/// Arguments of `tally submit`.
#[derive(Debug, Args)]
#[command(after_help = format!("{}\n\n{EXIT_CODES}", examples::SUBMIT))]
pub struct SubmitArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    job: JobArgs,
    /// Print the job's id and exit without waiting for its end
    #[arg(long, conflicts_with_all = ["timeout", "cancel_on_interrupt"])]
    detach: bool,
    /// How long to wait for the job's end; the job continues after that, unless --cancel-on-interrupt is given
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Cancel the job at Ctrl-C, SIGTERM, SIGHUP and the timeout; otherwise it continues
    #[arg(long)]
    cancel_on_interrupt: bool,
    /// Name of the Kubernetes job that runs this command. If a CronJob created it, the default date is the day before the
    /// scheduled time, also if the job starts late or again after midnight
    #[arg(long, value_name = "NAME")]
    scheduled_job: Option<String>,
    /// Output format of the summary
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Why the wait ended.
#[derive(Clone, Copy)]
enum Why {
    Interrupted,
    Late(Duration),
}

/// Handlers of the requests to end.
///
/// # Errors
/// The system refuses.
pub(crate) fn end_signals() -> Result<EndSignals, Stop> {
    EndSignals::new().map_err(|e| Stop::Failed(format!("signal handlers cannot be installed: {e}")))
}

/// Resolves after the time limit; never without one.
pub(crate) async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => pending().await,
    }
}

/// Runs the command.
pub(crate) fn main(args: &SubmitArgs) -> Result<(), Stop> {
    let scheduled = args.scheduled_job.as_deref().and_then(dates::scheduled_time);
    let spec = args.job.elsewhere(scheduled.unwrap_or_else(Utc::now))?;
    block_on(&runtime()?, submit(args, &spec))
}

async fn submit(args: &SubmitArgs, spec: &JobSpec) -> Result<(), Stop> {
    let display = Rc::new(Display::new(args.output_format));
    let notices = display.clone();
    let mut client = args.connect.client(move |text| notices.note(text))?;
    let mut interrupts = end_signals()?;
    let late = after(args.timeout);
    tokio::pin!(late);
    let limit = args.timeout.unwrap_or_default();
    let taken = tokio::select! {
        taken = client.submit(spec) => taken?,
        () = interrupts.next() => return Err(Stop::Detached(UNSURE.into())),
        () = &mut late => return Err(Stop::TimedOut(format!("no coordinator accepted the job within {limit:?}; {UNSURE}"))),
    };
    if args.detach {
        return say(&detached(&taken.job, args.output_format)?);
    }
    display.note(&accepted(&taken));
    let job = taken.job;
    let why = tokio::select! {
        status = client.follow(&job, |status| display.show(status)) => return finish(&status?, args.output_format),
        () = interrupts.next() => Why::Interrupted,
        () = &mut late => Why::Late(limit),
    };
    if !args.cancel_on_interrupt {
        let text = continues(&job);
        return Err(match why {
            Why::Interrupted => Stop::Detached(text),
            Why::Late(limit) => Stop::TimedOut(format!("the job did not end within {limit:?}; {text}")),
        });
    }
    display.note(&format!("cancelling job {job}"));
    let ended = tokio::select! {
        ended = cancel(&mut client, &job, &display) => ended?,
        () = interrupts.next() => return Err(Stop::Detached(format!("it is unknown whether job {job} was cancelled: `tally job {job}` shows it"))),
    };
    match why {
        Why::Late(limit) if ended.state() == JobState::Cancelled => {
            Err(Stop::TimedOut(format!("the job did not end within {limit:?}; job {job} was cancelled")))
        }
        _ => finish(&ended, args.output_format),
    }
}

const UNSURE: &str = "it is unknown whether a job was started: `tally jobs` shows it";

/// The note about a job that the coordinator took.
fn accepted(taken: &SubmitReply) -> String {
    let what = if taken.existing { "is already running: following it" } else { "was accepted" };
    format!("job {} {what}", plain(&taken.job))
}

/// What happens to a job whose end is not waited for.
pub(crate) fn continues(job: &str) -> String {
    format!("job {job} continues: `tally job {job}` shows it, `tally cancel {job}` cancels it")
}

/// The job's id.
fn detached(job: &str, format: OutputFormat) -> Result<String, Stop> {
    #[derive(serde::Serialize)]
    struct Detached<'a> {
        job_id: &'a str,
    }
    match format {
        OutputFormat::Table => Ok(format!("{job}\n")),
        OutputFormat::Json => json(&Detached { job_id: job }),
    }
}

/// Cancels the job and waits for its end, whatever it is.
async fn cancel(client: &mut Client, job: &str, display: &Display) -> Result<JobStatus, Stop> {
    let ended = async {
        client.cancel(job).await?;
        client.follow(job, |status| display.show(status)).await
    };
    let late = |_| Stop::Failed(format!("job {job} did not end within {CANCEL:?} after it was cancelled"));
    Ok(timeout(CANCEL, ended).await.map_err(late)??)
}

/// Prints the summary of a finished job.
pub(crate) fn finish(status: &JobStatus, format: OutputFormat) -> Result<(), Stop> {
    let summary = summary(status)?;
    say_published(&match format {
        OutputFormat::Table => summary.table(),
        OutputFormat::Json => json(&whole(status)?)?,
    })
}

/// All fields of the summary, also those of another version of the coordinator.
fn whole(status: &JobStatus) -> Result<serde_json::Map<String, serde_json::Value>, Stop> {
    serde_json::from_str(&status.summary).map_err(unread)
}

/// The summary of a published day cannot be read.
fn unread(error: serde_json::Error) -> Stop {
    Stop::Failed(format!("the day is published, but its summary cannot be read: {error}"))
}

/// The summary of a finished job, if its day is published.
fn summary(status: &JobStatus) -> Result<Summary, Stop> {
    let job = &status.job;
    match status.state() {
        JobState::Done => {}
        JobState::Cancelled => {
            return Err(Stop::Cancelled(format!("job {job} was cancelled: the output is unchanged")));
        }
        _ => {
            let reason = if status.reason.is_empty() { "no reason was given" } else { &status.reason };
            let why = format!("job {job} failed: {}", plain(reason));
            return Err(if status.unmet_expectation { Stop::Unmet(why) } else { Stop::Failed(why) });
        }
    }
    let summary: Summary = serde_json::from_str(&status.summary).map_err(unread)?;
    summary.warnings.iter().for_each(|warning| eprintln!("warning: {}", plain(warning)));
    Ok(summary)
}

/// Runs a job on a cluster and returns its summary. The job is cancelled if this process is asked to end.
///
/// # Errors
/// [`Stop`]: no coordinator accepted the job, or it did not succeed.
pub(crate) fn there(connect: &ConnectArgs, spec: &JobSpec) -> Result<Summary, Stop> {
    block_on(&runtime()?, async {
        let mut interrupts = end_signals()?;
        let display = Display::new(OutputFormat::Table);
        run_there(connect, spec, display, |_| (), interrupts.next(), true).await
    })
}

/// Runs a job on a cluster until it ends, and returns its summary; `took` receives the job's id. When `interrupted`
/// resolves, the job continues without this process, or is cancelled with `cancel_on_interrupt`.
///
/// # Errors
/// [`Stop`]: no coordinator accepted the job, or it did not succeed. [`Stop::Detached`]: it continues.
pub(crate) async fn run_there(
    connect: &ConnectArgs,
    spec: &JobSpec,
    display: Display,
    took: impl FnOnce(&str),
    interrupted: impl Future<Output = ()>,
    cancel_on_interrupt: bool,
) -> Result<Summary, Stop> {
    let display = Rc::new(display);
    let notices = display.clone();
    let mut client = connect.client(move |text| notices.note(text))?;
    tokio::pin!(interrupted);
    let taken = tokio::select! {
        taken = client.submit(spec) => taken?,
        () = &mut interrupted => return Err(Stop::Detached(UNSURE.into())),
    };
    display.note(&accepted(&taken));
    let job = taken.job;
    took(&job);
    tokio::select! {
        status = client.follow(&job, |status| display.show(status)) => return summary(&status?),
        () = &mut interrupted => {}
    }
    if !cancel_on_interrupt {
        return Err(Stop::Detached(continues(&job)));
    }
    display.note(&format!("cancelling job {job}"));
    summary(&cancel(&mut client, &job, &display).await?)
}
