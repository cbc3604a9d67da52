//! KEDA and the horizontal pod autoscaler, simulated over real workers: their calls in the same order, the formula, the
//! stabilisation window and the policies, with durations shortened for tests.
//!
//! Taken from their sources: KEDA decides between zero and one worker by `IsActive`; from one on, the HPA decides by
//! `ceil(metric / target)`, keeps the current count while the metric is unavailable, and scales down no further than
//! the highest recommendation of its window. Neither of them chooses which worker stops. Not here: the responses (the
//! coordinator's `scaler`).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use tally_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Cluster;

/// Timeout of a response. KEDA waits 3 s; a machine that runs tests may be slower.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause before a stream is opened again.
const AGAIN: Duration = Duration::from_millis(200);
/// Tolerance: the HPA does not scale while the load per worker is this close to the target.
const TOLERANCE: f64 = 0.1;

/// The settings of a ScaledObject.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// Minimum and maximum number of workers.
    pub replicas: (usize, usize),
    /// Slots per worker, as in the metadata of the trigger.
    pub slots_per_worker: &'static str,
    /// Time without any job before the last worker stops.
    pub cooldown: Duration,
    /// Time of lower load before workers stop.
    pub stabilization: Duration,
}

/// The state of the workers at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Seconds since the autoscaler started.
    pub seconds: f64,
    /// Number of workers wanted.
    pub replicas: usize,
    /// Attached workers that accept tasks, and attached workers that drain.
    pub workers: [u64; 2],
    /// Runnable tasks, and running attempts. None while the leader is unknown.
    pub work: Option<[u64; 2]>,
    /// The current step of the test.
    pub phase: &'static str,
}

/// The two controllers and the deployment that they scale.
pub struct Autoscaler {
    /// A test may change it between two steps, as users do.
    pub scaling: Scaling,
    runtime: Runtime,
    client: ExternalScalerClient<Channel>,
    /// The workers of the cluster that belong to the deployment.
    running: Vec<usize>,
    last_active: Instant,
    wishes: VecDeque<(Instant, usize)>,
    started: Instant,
    /// The recorded trace.
    pub trace: Vec<Sample>,
    /// The maximum number of workers so far.
    pub peak: usize,
    /// The current step of the test, for the trace.
    pub phase: &'static str,
    /// Whether workers are frozen as soon as they are started.
    pub hold: bool,
}

impl Autoscaler {
    /// An autoscaler that queries the coordinator at `address`; there are no workers yet.
    ///
    /// # Errors
    /// The address is invalid.
    pub fn new(address: &str, scaling: Scaling) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint =
            Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(ANSWER).timeout(ANSWER);
        let client = {
            let _inside = runtime.enter();
            ExternalScalerClient::new(endpoint.connect_lazy())
        };
        let now = Instant::now();
        Ok(Self {
            scaling,
            runtime,
            client,
            running: Vec::new(),
            last_active: now,
            wishes: VecDeque::new(),
            started: now,
            trace: Vec::new(),
            peak: 0,
            phase: "",
            hold: false,
        })
    }

    fn object(&self) -> ScaledObjectRef {
        ScaledObjectRef {
            name: "tally-worker".into(),
            namespace: "default".into(),
            scaler_metadata: [("slotsPerWorker".to_string(), self.scaling.slots_per_worker.to_string())]
                .into(),
        }
    }

    /// The number of workers wanted now.
    pub fn replicas(&self) -> usize {
        self.running.len()
    }

    /// Whether any worker is wanted, as KEDA queries it.
    ///
    /// # Errors
    /// Those of the coordinator.
    pub fn is_active(&mut self) -> Result<bool, Status> {
        let object = self.object();
        Ok(self.runtime.block_on(self.client.is_active(object))?.into_inner().result)
    }

    /// All later changes of whether workers are wanted, as KEDA receives them by push.
    pub fn listen(&mut self) -> Arc<Mutex<Vec<bool>>> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut client, object, heard) = (self.client.clone(), self.object(), said.clone());
        self.runtime.spawn(async move {
            loop {
                if let Ok(stream) = client.stream_is_active(object.clone()).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(word)) = stream.message().await {
                        if let Ok(mut heard) = heard.lock()
                            && heard.last() != Some(&word.result)
                        {
                            heard.push(word.result);
                        }
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        said
    }

    /// The metric and its target, as KEDA passes them to the HPA.
    ///
    /// # Errors
    /// Those of the coordinator.
    pub fn metric(&mut self) -> Result<(f64, f64), Status> {
        let object = self.object();
        self.runtime.block_on(async {
            let specs = self.client.get_metric_spec(object.clone()).await?.into_inner().metric_specs;
            let [spec] = specs.as_slice() else {
                return Err(Status::internal(format!("not one metric, but {specs:?}")));
            };
            let request =
                GetMetricsRequest { scaled_object_ref: Some(object), metric_name: spec.metric_name.clone() };
            let values = self.client.get_metrics(request).await?.into_inner().metric_values;
            match values.as_slice() {
                [value] if value.metric_value as f64 == value.metric_value_float.ceil() => {
                    Ok((value.metric_value_float, spec.target_size_float))
                }
                other => Err(Status::internal(format!("not one value, or two that differ: {other:?}"))),
            }
        })
    }

    /// Runs one round of both controllers and applies their decision.
    ///
    /// # Errors
    /// A worker can't be started, or does not exit with 0.
    pub fn step(&mut self, cluster: &mut Cluster) -> Result<()> {
        let wanted = self.decide()?;
        self.scale(cluster, wanted)?;
        self.sample(cluster);
        Ok(())
    }

    fn decide(&mut self) -> Result<usize> {
        let (least, most) = self.scaling.replicas;
        let current = self.replicas();
        let now = Instant::now();
        match self.is_active() {
            // No scaling while the scaler does not answer.
            Err(_) => return Ok(current),
            Ok(true) => self.last_active = now,
            // All at once, without the HPA's window, as KEDA does.
            Ok(false) if now.duration_since(self.last_active) >= self.scaling.cooldown => {
                self.wishes.clear();
                return Ok(least);
            }
            Ok(false) => {}
        }
        if current < least {
            return Ok(least);
        }
        // Independent of the metric.
        if current > most {
            return Ok(most);
        }
        if current == 0 {
            return Ok(usize::from(self.last_active == now));
        }
        let Ok((value, target)) = self.metric() else { return Ok(current) };
        ensure!(target > 0.0 && value >= 0.0, "a metric of {value} over {target}");
        let ratio = value / (target * current as f64);
        let wish = if (ratio - 1.0).abs() <= TOLERANCE { current } else { (value / target).ceil() as usize };
        Ok(self.stabilized(now, wish, current).clamp(least.max(1), most))
    }

    fn stabilized(&mut self, now: Instant, wish: usize, current: usize) -> usize {
        self.wishes.push_back((now, wish));
        while self.wishes.front().is_some_and(|(at, _)| now.duration_since(*at) > self.scaling.stabilization)
        {
            self.wishes.pop_front();
        }
        let highest = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wish);
        // Scales up at once; scales down to the highest recommendation of the window, half of the workers at a time.
        if wish >= current { wish } else { highest.min(current).max(current / 2) }
    }

    /// Starts workers, or stops some: the first ones, which hold most outputs.
    fn scale(&mut self, cluster: &mut Cluster, wanted: usize) -> Result<()> {
        while self.running.len() < wanted {
            let worker = cluster.add_worker()?;
            if self.hold {
                worker.process.freeze()?;
            }
            self.running.push(cluster.workers.len() - 1);
        }
        let leaving = self.running.len() - wanted;
        for at in self.running.drain(..leaving) {
            cluster.workers[at].process.terminate()?;
        }
        self.peak = self.peak.max(wanted);
        cluster.check_no_crash()
    }

    fn sample(&mut self, cluster: &Cluster) {
        let seen = cluster.metrics().unwrap_or_default();
        let value = |name: &str| seen.get(name).map(|value| *value as u64);
        let workers = |state: &str| value(&format!("tally_workers{{state=\"{state}\"}}"));
        let last = self.trace.last().map_or([0, 0], |sample| sample.workers);
        let [attached, draining] = ["attached", "draining"].map(workers);
        let seconds = self.started.elapsed().as_secs_f64();
        let sample = Sample {
            seconds,
            replicas: self.replicas(),
            workers: [attached.unwrap_or(last[0]), draining.unwrap_or(last[1])],
            work: value("tally_tasks_runnable").zip(value("tally_attempts_running")).map(Into::into),
            phase: self.phase,
        };
        self.trace.push(sample);
    }

    /// The trace as CSV.
    pub fn csv(&self) -> String {
        let mut text = "seconds,phase,replicas,attached,draining,runnable,running\n".to_string();
        for sample in &self.trace {
            let [attached, draining] = sample.workers;
            let work =
                sample.work.map_or(",".to_string(), |[runnable, running]| format!("{runnable},{running}"));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:.2},{},{},{attached},{draining},{work}",
                sample.seconds, sample.phase, sample.replicas
            );
        }
        text
    }

    /// Runs rounds until `condition` holds.
    ///
    /// # Errors
    /// Those of a round, or the condition does not hold in time.
    pub fn until(
        &mut self,
        cluster: &mut Cluster,
        what: &str,
        mut condition: impl FnMut(&mut Self, &Cluster) -> Result<bool>,
    ) -> Result<()> {
        let pause = Duration::from_millis(100);
        crate::wait::wait_every(pause, what, Duration::from_secs(150), || {
            self.step(cluster)?;
            Ok(condition(self, cluster)?.then_some(()))
        })
        .with_context(|| {
            format!("the last samples: {:?}", self.trace.iter().rev().take(5).collect::<Vec<_>>())
        })
    }
}
