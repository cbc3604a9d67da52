//! Two processes of `tally coordinator` and a real Consul: one leads, the other stands by and takes
//! over the submitted jobs. Not here: running jobs (there are no workers).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tally_tests::consul::{ConsulAgent, Setup};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

fn tally(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.args(args).stdin(Stdio::null());
    for name in ["TALLY_COORDINATOR", "TALLY_CONSUL", "CONSUL_HTTP_TOKEN", "TALLY_LOG", "date", "bucket"] {
        command.env_remove(name);
    }
    command
}

fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(value) = ask()? {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("never {what}")
}

/// A coordinator's process, killed when it is dropped.
struct Coordinator {
    child: Child,
    address: String,
}

impl Coordinator {
    fn start(place: &TempDir, agent: &ConsulAgent, name: &str) -> Result<Self> {
        let port_file = place.path().join(format!("{name}.port"));
        let log = std::fs::File::create(place.path().join(format!("{name}.log")))?;
        let consul = format!("http://{}", agent.address());
        let mut command = tally(&["coordinator", "--listen", "127.0.0.1:0", "--consul", &consul]);
        command.arg("--state-dir").arg(place.path().join("state")).arg("--port-file").arg(&port_file);
        let child = command.env("TALLY_LOG", "info").stderr(log).spawn()?;
        let mut coordinator = Coordinator { child, address: String::new() };
        coordinator.address = wait_for("an address", || Ok(std::fs::read_to_string(&port_file).ok()))?;
        Ok(coordinator)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    fn exit_code(&mut self) -> Result<Option<i32>> {
        wait_for("its end", || Ok(self.child.try_wait()?)).map(|status| status.code())
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The JSON output of a command.
fn asked(args: &[&str]) -> Result<Value> {
    let output = tally(args).args(["--output-format", "json"]).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A job that waits for workers; its id.
fn submit(place: &TempDir, to: [&str; 2]) -> Result<String> {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/case-01");
    let path = |path: &Path| path.display().to_string();
    let (addons, main) = (path(&case.join("addons/v2")), path(&case.join("main_summary/v3")));
    let output = path(&place.path().join("out"));
    let args = ["submit", to[0], to[1], "--detach", "--date", "20170227", "--addons", &addons];
    let answer = asked(&[&args[..], &["--main-summary", &main, "--output", &output]].concat())?;
    Ok(answer["job_id"].as_str().context("no id")?.to_string())
}

fn the_standby_leads_after_the_leader_is_stopped_or_killed_and_knows_its_jobs() -> Result<()> {
    let agent = ConsulAgent::start(Setup::default())?;
    let place = TempDir::new()?;
    let consul = format!("http://{}", agent.address());
    let mut first = Coordinator::start(&place, &agent, "first")?;
    let job = submit(&place, ["--consul", &consul])?;
    let mut second = Coordinator::start(&place, &agent, "second")?;
    // The standby names the leader.
    let known = asked(&["job", &job, "--coordinator", &second.address])?;
    assert_eq!(known["job_id"], job.as_str());

    let takes_over = |next: &Coordinator| -> Result<Duration> {
        let begun = Instant::now();
        let known = wait_for("the next leader", || {
            let args = ["job", &job, "--coordinator", &next.address, "--connect-timeout", "100ms"];
            Ok(asked(&args).ok())
        })?;
        assert_eq!(known["job_id"], job.as_str());
        Ok(begun.elapsed())
    };
    first.signal(Signal::TERM)?;
    let stopped = takes_over(&second)?;
    assert_eq!(first.exit_code()?, Some(0));
    ensure!(stopped < Duration::from_secs(3), "{stopped:?} after SIGTERM");

    let third = Coordinator::start(&place, &agent, "third")?;
    second.signal(Signal::KILL)?;
    second.exit_code()?;
    let killed = takes_over(&third)?;
    ensure!(killed < Duration::from_secs(25), "{killed:?} after SIGKILL");
    eprintln!("took over {stopped:.1?} after SIGTERM, {killed:.1?} after SIGKILL");

    // Commands also find it through Consul, and it is registered.
    let known = asked(&["job", &job, "--consul", &consul])?;
    assert_eq!(known["job_id"], job.as_str());
    Ok(())
}

fn without_consul_no_new_job_is_taken_and_the_reason_is_told() -> Result<()> {
    let mut agent = ConsulAgent::start(Setup { durable: true, ..Setup::default() })?;
    let place = TempDir::new()?;
    let leader = Coordinator::start(&place, &agent, "leader")?;
    let to = ["--coordinator", leader.address.as_str()];
    let job = submit(&place, to)?;
    agent.kill();
    let refusal = wait_for("a refusal", || {
        let output = place.path().join("other").display().to_string();
        let args = ["submit", to[0], to[1], "--connect-timeout", "100ms", "--detach", "--date", "20170227"];
        let ended =
            tally(&args).args(["--output", &output, "--addons", "/a", "--main-summary", "/m"]).output()?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        Ok(said.contains("no new job is accepted").then_some((ended.status.code(), said)))
    });
    let (code, said) = refusal?;
    assert_eq!(code, Some(5), "{said}");
    // The job continues, and can be listed.
    assert_eq!(asked(&["job", &job, to[0], to[1]])?["job_id"], job.as_str());
    agent.restart()?;
    wait_for("a submit that is taken", || Ok(submit(&place, to).ok().filter(|same| *same == job)))?;
    Ok(())
}

tally_tests::tests![
    the_standby_leads_after_the_leader_is_stopped_or_killed_and_knows_its_jobs,
    without_consul_no_new_job_is_taken_and_the_reason_is_told,
];
