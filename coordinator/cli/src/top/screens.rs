//! Tests of what users see and what keys do, in screens of several sizes and without a terminal.

use std::time::Duration;

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};
use tally_proto::v1::{JobDetail, JobEvent, JobState, JobStatus, RunningTask, WorkerStatus};

use super::app::{Action, App, Cluster, Focus, MAX_DETAIL, MAX_LISTED, Overlay, Update};
use super::keys::Key;
use super::paint::paint;
use super::samples::{cluster, detailed, job, worker};
use super::theme::Theme;

/// Narrow, usual and wide.
const SIZES: [(u16, u16); 3] = [(60, 20), (80, 24), (200, 50)];
/// Screens that no user wants, and that must not fail.
const ODD_SIZES: [(u16, u16); 8] = [(0, 0), (1, 1), (3, 2), (7, 3), (20, 4), (59, 5), (1, 40), (400, 1)];
const NOW: Duration = Duration::from_secs(100);

/// The overview, just answered.
fn overview() -> App {
    let mut app = App::new(cluster());
    app.update(Update::Cluster(cluster()), NOW);
    app
}

fn page(job: JobStatus) -> App {
    let mut app = overview();
    app.key(Key::Enter);
    app.update(Update::Job(Box::new(job)), NOW);
    app
}

/// The screen after one drawing, which the next keys refer to.
fn drawn(app: &mut App, (columns, rows): (u16, u16), theme: Theme, now: Duration) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    let extent = paint(app, theme, now, &mut buffer);
    app.fit(extent);
    buffer
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let columns = usize::from(buffer.area.width).max(1);
    let row = |cells: &[Cell]| cells.iter().map(|cell| cell.symbol()).collect();
    buffer.content().chunks(columns).map(row).collect()
}

fn seen(app: &mut App, size: (u16, u16)) -> String {
    lines(&drawn(app, size, Theme::new(true), NOW)).join("\n")
}

/// The line with this text.
fn line(screen: &str, part: &str) -> String {
    let found = screen.lines().find(|line| line.contains(part));
    found.unwrap_or_else(|| panic!("no {part:?} in\n{screen}")).to_string()
}

fn press(app: &mut App, signs: &str) -> Vec<Action> {
    signs.chars().map(|sign| app.key(Key::Char(sign))).collect()
}

#[test]
fn jobs_progress_and_silent_workers_are_seen_on_each_screen() {
    for size in SIZES {
        let screen = seen(&mut overview(), size);
        assert!(
            screen.contains("host-1:7070") && screen.contains("live") && screen.contains("? keys"),
            "{screen}"
        );
        let running = line(&screen, "20170227-b");
        assert!(running.contains("map 10/40 tasks") && running.contains("18 %"), "{screen}");
        assert!(line(&screen, "20170226-a").contains("cancelled"), "{screen}");
        assert!(line(&screen, "20170225-c").contains("failed"), "{screen}");
        let frozen = line(&screen, "w-frozen  silent");
        assert!(frozen.contains("silent for 5.4 s") && frozen.contains("3/4"), "{screen}");
        let first = line(&screen, "w-1 ");
        assert!(first.contains("attached") && first.contains("0.4 s ago"), "{screen}");
    }
    let wide = seen(&mut overview(), (200, 50));
    assert!(
        line(&wide, "20170227-b").contains("worker w-frozen is silent, 1 task waits for memory"),
        "{wide}"
    );
    let memory = line(&wide, "w-1 ");
    assert!(memory.contains("512.0 MiB/1.0 GiB"), "{memory}");
}

#[test]
fn a_job_shows_what_its_tasks_wait_for_and_why_attempts_failed() {
    for size in SIZES {
        let mut app = page(detailed());
        let mut screen = String::new();
        // To the end of the page, as a user would.
        for _ in 0..10 {
            screen += &seen(&mut app, size);
            screen += "\n";
            app.key(Key::PageDown);
        }
        assert!(line(&screen, "map 2").contains("waits for memory"), "{screen}");
        let silent = line(&screen, "map 3 ");
        assert!(silent.contains("w-frozen") && silent.contains("worker silent"), "{screen}");
        assert!(screen.contains("pending map tasks: all slots are busy"), "{screen}");
        let failed = line(&screen, "map task 3");
        assert!(failed.contains("w-1"), "{screen}");
        // Long texts continue on the next line.
        let text = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("the disk is full") && text.contains("3.0 times the median"), "{screen}");
        assert!(screen.contains("TASK TIME"), "{screen}");
    }
    let wide = seen(&mut page(detailed()), (200, 50));
    assert!(wide.contains("2,000,000"), "rows per second: {wide}");
    // Attempts are counted from 1 by each leader.
    let words = |task| line(&wide, task).split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words("map 1 ")[..3], ["map", "1", "1"], "{wide}");
    assert_eq!(words("map 2 ")[..4], ["map", "2", "2", "(speculative)"], "{wide}");
    // The silent worker first, then what waits.
    let order: Vec<_> = ["map 3 ", "map 2 ", "map 1 "].map(|task| wide.find(task)).into();
    assert!(order.is_sorted(), "{wide}");
}

#[test]
fn the_slots_in_the_first_line_are_live_while_a_job_is_open() {
    let mut app = page(detailed());
    assert!(seen(&mut app, (80, 24)).contains("slots 6/8"));
    let idle = WorkerStatus { running: 0, ..worker("w-1") };
    app.update(Update::Workers(vec![idle], false), NOW);
    assert!(seen(&mut app, (80, 24)).contains("slots 0/4 "));
    let more = (0..MAX_LISTED + 1).map(|at| worker(&format!("w-{at}"))).collect();
    app.update(Update::Workers(more, false), NOW);
    assert!(seen(&mut app, (80, 24)).contains("slots 600/800 of the first 200 workers"));
}

#[test]
fn the_end_of_a_job_is_seen_with_its_reason() {
    let mut failed = job("20170227-b", JobState::Failed);
    failed.reason = "4 attempts of map task 3 failed: the disk is full".into();
    let screen = seen(&mut page(failed), (60, 20));
    assert!(screen.contains("Job 20170227-b  failed") && screen.contains("the disk is full"), "{screen}");
    let screen = seen(&mut page(job("20170227-b", JobState::Cancelled)), (60, 20));
    assert!(screen.contains("Job 20170227-b  cancelled") && !screen.contains(" %"), "{screen}");
}

#[test]
fn no_size_of_the_screen_fails() {
    let mut confirm = page(detailed());
    press(&mut confirm, "c");
    let mut help = overview();
    press(&mut help, "?");
    let mut lost = overview();
    lost.update(Update::Trouble("x".repeat(5000)), NOW);
    for mut app in [overview(), page(detailed()), confirm, help, lost, App::new(Cluster::default())] {
        for size in ODD_SIZES {
            drawn(&mut app, size, Theme::new(true), NOW);
            app.key(Key::Down);
            app.key(Key::End);
        }
    }
}

#[test]
fn an_empty_cluster_says_so() {
    let screen = seen(&mut App::new(Cluster::default()), (60, 20));
    assert!(screen.contains("has no jobs") && screen.contains("No worker is attached"), "{screen}");
    let mut app = App::new(Cluster::default());
    assert_eq!(app.key(Key::Enter), Action::Draw);
    assert_eq!(press(&mut app, "cjkGg"), [const { Action::Draw }; 5]);
    assert_eq!(app.overlay, None, "there is nothing to cancel");
}

#[test]
fn a_lost_leader_is_named_until_another_one_answers() {
    let mut app = overview();
    app.update(Update::Trouble("host-1:7070: refused;\n looking for the leader".into()), NOW);
    for size in SIZES {
        let later = NOW + Duration::from_secs(7);
        let screen = lines(&drawn(&mut app, size, Theme::new(true), later)).join("\n");
        assert!(
            screen.contains("not connected") && screen.contains("No answer for 7 s: host-1:7070"),
            "{screen}"
        );
        assert!(screen.contains("w-frozen"), "what was known stays: {screen}");
    }
    app.update(Update::Cluster(Cluster { leader: "host-2:7070".into(), ..cluster() }), NOW);
    let screen = seen(&mut app, (60, 20));
    assert!(
        screen.contains("host-2:7070") && screen.contains("live") && !screen.contains("No answer"),
        "{screen}"
    );
    // A leader that hangs: its last answer gets old before the request fails.
    let later = NOW + Duration::from_secs(5);
    let screen = lines(&drawn(&mut app, (60, 20), Theme::new(true), later)).join("\n");
    assert!(screen.contains("no answer for 5 s"), "{screen}");
}

#[test]
fn a_refusal_is_shown_and_is_no_lost_leader() {
    let mut app = page(detailed());
    app.update(Update::Refused("job 20170227-b is not known to the coordinator".into()), NOW);
    let screen = seen(&mut app, (60, 20));
    assert!(screen.contains("is not known") && screen.contains("live"), "{screen}");
    assert!(screen.contains("Running tasks"), "the last answer stays: {screen}");
}

#[test]
fn keys_move_and_the_selection_stays_at_its_job() {
    let mut app = overview();
    assert_eq!(app.selected(Focus::Jobs), 0);
    assert_eq!(press(&mut app, "j"), [Action::Draw]);
    // A new job comes first.
    let mut more = cluster();
    more.jobs.insert(0, job("20170228-n", JobState::Running));
    app.update(Update::Cluster(more), NOW);
    assert_eq!(app.selected(Focus::Jobs), 2);
    assert_eq!(app.key(Key::Enter), Action::Open("20170226-a".into()));
    assert_eq!(app.key(Key::Escape), Action::Close);
    // The job is gone: its place stays.
    app.update(Update::Cluster(Cluster { jobs: vec![job("x", JobState::Done)], ..cluster() }), NOW);
    assert_eq!(app.selected(Focus::Jobs), 0);
    app.key(Key::Tab);
    app.key(Key::Down);
    assert_eq!((app.focus, app.selected(Focus::Workers)), (Focus::Workers, 1));
    assert_eq!(app.key(Key::Enter), Action::Draw, "a worker has no page");
    app.key(Key::BackTab);
    assert_eq!(app.focus, Focus::Jobs);
    assert_eq!(press(&mut app, "q"), [Action::Quit]);
    assert_eq!(page(detailed()).key(Key::Interrupt), Action::Quit);
}

#[test]
fn the_selected_row_is_always_visible() {
    let jobs = (0..100).map(|at| job(&format!("job-{at:03}"), JobState::Running)).collect();
    let mut app = App::new(Cluster { jobs, ..cluster() });
    for (key, shown) in [(Key::End, "job-099"), (Key::Home, "job-000"), (Key::PageDown, "job-0")] {
        seen(&mut app, (60, 20));
        app.key(key);
        let buffer = drawn(&mut app, (60, 20), Theme::new(false), NOW);
        let reversed = |row: &u16| buffer[(1, *row)].modifier.contains(Modifier::REVERSED);
        let row = (1..19).find(reversed).expect("a selected row");
        assert!(lines(&buffer)[usize::from(row)].starts_with(shown), "{key:?}");
    }
}

#[test]
fn a_job_is_cancelled_only_after_yes() {
    let mut app = overview();
    press(&mut app, "c");
    assert_eq!(app.overlay, Some(Overlay::Confirm("20170227-b".into())));
    for size in SIZES {
        let screen = seen(&mut app, size);
        assert!(screen.contains("Cancel job 20170227-b?") && screen.contains("y: cancel it"), "{screen}");
    }
    assert_eq!(app.key(Key::Other), Action::Draw, "a change of the size is no answer");
    assert_eq!(app.key(Key::Enter), Action::Draw);
    assert_eq!(app.overlay, None);
    assert_eq!(press(&mut app, "cy"), [Action::Draw, Action::Cancel("20170227-b".into())]);
    assert_eq!(press(&mut app, "y"), [Action::Draw], "once");
    app.update(Update::Cancelled("job 20170227-b is cancelled".into()), NOW);
    assert!(seen(&mut app, (60, 20)).contains("is cancelled"));
    // A job that ended cannot be cancelled.
    press(&mut app, "jc");
    assert_eq!(app.overlay, None);
}

#[test]
fn help_names_the_keys_and_any_key_closes_it() {
    let mut app = overview();
    press(&mut app, "?");
    for size in SIZES {
        let screen = seen(&mut app, size);
        assert!(screen.contains("cancel the job") && screen.contains("NO_COLOR"), "{screen}");
    }
    assert_eq!(press(&mut app, "q"), [Action::Draw]);
    assert_eq!(app.overlay, None);
}

#[test]
fn tab_goes_from_section_to_section() {
    let mut app = page(detailed());
    let mut heads = vec![];
    for _ in 0..3 {
        seen(&mut app, (60, 12));
        app.key(Key::Tab);
        heads.push(lines(&drawn(&mut app, (60, 12), Theme::new(true), NOW))[1].trim().to_string());
    }
    assert_eq!(heads[..2], ["Stages", "Running tasks"]);
    assert!(heads[2].starts_with("Failed attempts"), "{heads:?}");
    app.key(Key::BackTab);
    assert!(lines(&drawn(&mut app, (60, 12), Theme::new(true), NOW))[1].starts_with("Running tasks"));
    // Keys beyond the end do not add up.
    (0..500).for_each(|_| _ = app.key(Key::PageDown));
    seen(&mut app, (60, 12));
    let end = app.scroll;
    app.key(Key::Up);
    assert_eq!(app.scroll + 1, end);
}

#[test]
fn without_colours_there_is_none_and_nothing_is_missing() {
    for mut app in [overview(), page(detailed())] {
        let plain = drawn(&mut app, (120, 40), Theme::new(false), NOW);
        assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        let coloured = drawn(&mut app, (120, 40), Theme::new(true), NOW);
        assert!(coloured.content().iter().any(|cell| cell.fg == Color::Red));
        assert_eq!(lines(&plain), lines(&coloured));
    }
}

#[test]
fn lists_are_bounded_and_say_so() {
    let jobs = (0..1000).map(|at| job(&format!("job-{at}"), JobState::Done)).collect();
    let workers = (0..1000).map(|at| worker(&format!("w-{at}"))).collect();
    let mut app = App::new(Cluster::default());
    app.update(Update::Cluster(Cluster { jobs, workers, ..Cluster::default() }), NOW);
    assert_eq!((app.cluster.jobs.len(), app.cluster.workers.len()), (MAX_LISTED, MAX_LISTED));
    let screen = seen(&mut app, (80, 24));
    assert!(screen.contains("Jobs (newest 200)") && screen.contains("Workers (first 200)"), "{screen}");
    let task = |index| RunningTask { stage: "map".into(), index, ..RunningTask::default() };
    let event = |number| JobEvent { number, text: "x".repeat(500), ..JobEvent::default() };
    let detail = JobDetail {
        running: (0..20_000).map(task).collect(),
        incidents: (0..2000).map(event).collect(),
        ..JobDetail::default()
    };
    let mut app = page(JobStatus { detail: Some(detail), ..job("20170227-b", JobState::Running) });
    let kept = app.job().and_then(|job| job.detail.as_ref()).unwrap();
    assert_eq!((kept.running.len(), kept.incidents.len()), (MAX_DETAIL, MAX_DETAIL));
    assert_eq!(kept.incidents.last().map(|event| event.number), Some(1999), "the newest ones");
    assert!(seen(&mut app, (80, 200)).contains("and 19,950 more"));
    app.update(Update::Trouble("x".repeat(1 << 20)), NOW);
    assert!(app.trouble.as_ref().is_some_and(|text| text.len() <= 1000));
}

#[test]
fn an_answer_about_a_closed_job_is_not_shown() {
    let mut app = overview();
    press(&mut app, "j");
    app.key(Key::Enter);
    app.update(Update::Job(Box::new(detailed())), NOW);
    assert!(seen(&mut app, (60, 20)).contains("Job 20170226-a"));
}

#[test]
fn texts_of_other_processes_move_no_cursor() {
    let mut app =
        page(JobStatus { reason: "\x1b[2Jgone\r\nnow".into(), ..job("20170227-b", JobState::Failed) });
    let buffer = drawn(&mut app, (60, 20), Theme::new(true), NOW);
    assert!(buffer.content().iter().all(|cell| !cell.symbol().contains(char::is_control)));
}
