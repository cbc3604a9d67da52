//! Submissions, lists, cancellations.

use std::collections::BTreeSet;

use tally_proto::v1;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::rig::{Coordinator, Place, Scene, becomes, refused, submit, timing};

#[tokio::test]
async fn a_submit_is_idempotent_while_the_job_runs() {
    let Scene { place, coordinator: _coordinator, mut jobs } = Scene::new().await;
    let first = submit(&mut jobs, place.spec("out")).await.unwrap();
    let cut = v1::JobSpec {
        partitions: Some(5),
        output: place.path("./out").display().to_string(),
        ..place.spec("out")
    };
    let second = submit(&mut jobs, cut).await.unwrap();
    assert_eq!((first.existing, second.existing, &second.job), (false, true, &first.job));
    let mut other = place.spec("out");
    other.inputs[0] = place.path("elsewhere").display().to_string();
    refused(submit(&mut jobs, other).await, Code::AlreadyExists, &first.job);
    assert_ne!(submit(&mut jobs, place.spec("out2")).await.unwrap().job, first.job);
}

#[tokio::test]
async fn invalid_submissions_are_refused_with_an_error_that_names_the_field() {
    let place = Place::new();
    let coordinator = Coordinator::start_with(&place, timing(), 1).await;
    let mut jobs = coordinator.jobs().await;
    let mut check = async |change: &dyn Fn(&mut v1::JobSpec), named: &str| {
        let mut spec = place.spec("out");
        change(&mut spec);
        refused(submit(&mut jobs, spec).await, Code::InvalidArgument, named);
    };
    check(&|spec| spec.dataset = "sums".into(), "sums").await;
    check(&|spec| spec.date = "20170229".into(), "20170229").await;
    check(&|spec| spec.inputs.truncate(1), "main_summary").await;
    check(&|spec| spec.output = "relative".into(), "relative").await;
    check(&|spec| spec.output = "ftp://host/x".into(), "ftp").await;
    check(&|spec| spec.output.clone_from(&spec.inputs[0]), "overlap").await;
    check(&|spec| spec.target_file_size = 0, "target_file_size").await;
    check(&|spec| spec.partitions = Some(0), "partitions").await;
    submit(&mut jobs, place.spec("out")).await.unwrap();
    refused(submit(&mut jobs, place.spec("out2")).await, Code::ResourceExhausted, "the cluster runs 1 job");
    let unknown = || v1::JobRequest { job: "unknown".into() };
    refused(jobs.get(unknown()).await, Code::NotFound, "unknown");
    refused(jobs.cancel(unknown()).await, Code::NotFound, "unknown");
    refused(jobs.watch(unknown()).await, Code::NotFound, "unknown");
    refused(jobs.get(v1::JobRequest { job: "../x".into() }).await, Code::InvalidArgument, "../x");
    let worker = v1::WorkerRequest { worker: "unknown".into() };
    refused(jobs.drain_worker(worker).await, Code::NotFound, "unknown");
}

#[tokio::test]
async fn a_cancelled_job_leaves_nothing() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut worker = coordinator.worker("w").await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let dispatch = worker.next_task().await;
    assert!(!place.is_clean());
    let mut watched = jobs.watch(v1::JobRequest { job: job.clone() }).await.unwrap().into_inner();
    jobs.cancel(v1::JobRequest { job: job.clone() }).await.unwrap();
    use v1::coordinator_message::Message::{Release, Stop};
    assert_eq!(worker.next().await, dispatch.attempt.map(Stop));
    assert_eq!(worker.next().await, Some(Release(job.clone())));
    let mut last = v1::JobStatus::default();
    while let Some(status) = watched.message().await.unwrap() {
        last = status;
    }
    assert_eq!(last.state(), v1::JobState::Cancelled);
    becomes(&mut jobs, &job, v1::JobState::Cancelled).await;
    assert!(place.is_clean() && place.day("out").is_empty());
    // Another job may use its output.
    assert_ne!(submit(&mut jobs, place.spec("out")).await.unwrap().job, job);
}

#[tokio::test]
async fn a_job_without_workers_waits_visibly_and_then_fails() {
    let place = Place::new();
    let timing =
        tally_coordinator::service::Timing { no_workers: std::time::Duration::from_millis(600), ..timing() };
    let coordinator = Coordinator::start_with(&place, timing, 8).await;
    let mut jobs = coordinator.jobs().await;
    let job = submit(&mut jobs, place.spec("out")).await.unwrap().job;
    let mut watched = jobs.watch(v1::JobRequest { job: job.clone() }).await.unwrap().into_inner();
    let mut states = BTreeSet::new();
    while let Some(status) = watched.message().await.unwrap() {
        states.insert(status.state().as_str_name());
    }
    assert!(states.contains("JOB_STATE_WAITING_FOR_WORKERS"), "{states:?}");
    let status = becomes(&mut jobs, &job, v1::JobState::Failed).await;
    assert!(status.reason.contains("no worker") && place.is_clean(), "{status:?}");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut workers = vec![];
    for number in 0..5 {
        workers.push(coordinator.worker(&format!("w{number}")).await);
        submit(&mut jobs, place.spec(&format!("out{number}"))).await.unwrap();
    }
    let (mut token, mut seen) = (String::new(), vec![]);
    loop {
        let request = v1::ListRequest { page_size: 2, page_token: token };
        let page = jobs.list(request).await.unwrap().into_inner();
        assert!(page.jobs.len() <= 2);
        seen.extend(page.jobs.into_iter().map(|job| job.submitted_at));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(seen.len() == 5 && seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
    let (mut token, mut seen) = (String::new(), vec![]);
    loop {
        let request = v1::ListRequest { page_size: 2, page_token: token };
        let page = jobs.list_workers(request).await.unwrap().into_inner();
        seen.extend(page.workers.into_iter().map(|worker| worker.worker));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["w0", "w1", "w2", "w3", "w4"]);
    let bad = v1::ListRequest { page_size: 2, page_token: "?".into() };
    refused(jobs.list(bad.clone()).await, Code::InvalidArgument, "page_token");
    refused(jobs.list_workers(bad).await, Code::InvalidArgument, "worker");
}

#[tokio::test]
async fn the_health_service_shows_the_leader() {
    let Scene { place: _place, coordinator, .. } = Scene::new().await;
    let mut health = HealthClient::new(coordinator.channel().await);
    for service in ["", "tally.v1.Control", "tally.v1.Jobs"] {
        let status = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(status.into_inner().status, 1, "{service:?} serves");
    }
}

#[tokio::test]
async fn reflection_names_the_services() {
    let Scene { place: _place, coordinator, .. } = Scene::new().await;
    let mut reflection = ServerReflectionClient::new(coordinator.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: BTreeSet<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["tally.v1.Control", "tally.v1.Jobs"] {
        assert!(names.contains(name), "{names:?}");
    }
}

/// A reduce output is lost after one of two part files was written, and made again with its rows in another order: the
/// first file is written again.
#[tokio::test]
async fn part_files_of_different_orders_are_written_again() {
    let Scene { place, coordinator, mut jobs } = Scene::new().await;
    let mut first = coordinator.worker("first").await;
    // One reduce task of two rows, a file for each.
    let spec = v1::JobSpec { target_file_size: 38, partitions: Some(1), ..place.spec("out") };
    first.rows = 2;
    let job = submit(&mut jobs, spec).await.unwrap().job;
    let is_write = |dispatch: &v1::TaskDispatch| dispatch.attempt.as_ref().unwrap().stage == 2;
    let mut dispatch = first.next_task().await;
    while !is_write(&dispatch) {
        first.finish(&dispatch).await;
        dispatch = first.next_task().await;
    }
    first.finish(&dispatch).await;
    assert!(is_write(&first.next_task().await), "two part files");
    let mut second = coordinator.worker("second").await;
    drop(first);
    // All outputs of the first worker are made again. Its part file stays until it proves incompatible.
    (second.rows, second.passes) = (2, 2);
    let done = second.work().await;
    assert_eq!(done[1..], [1, 2], "{done:?}");
    let status = becomes(&mut jobs, &job, v1::JobState::Done).await;
    assert_eq!(status.stages[2].reruns, 1, "{status:?}");
    assert!(place.day("out").len() == 2 && place.is_clean());
}
