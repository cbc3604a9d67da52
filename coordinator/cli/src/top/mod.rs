//! `tally top`: the cluster on the whole screen of a terminal, live; the twin of the coordinator's web page.
//!
//! `app` is the state, without I/O; `paint`, `overview` and `job_page` draw it with `grid` and `theme`; `keys` names the
//! keys; `feed` asks the leader; `screen` is the terminal, and `ansi` what is written to it. Here they are connected. Not
//! here: output for programs (`jobs`, `job`, `workers`).

mod ansi;
mod app;
mod feed;
mod grid;
mod job_page;
mod keys;
mod overview;
mod paint;
mod screen;
mod theme;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod screens;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tally_common::runtime::block_on;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use self::app::{Action, App, Update};
use self::feed::Questions;
use self::keys::Key;
use self::screen::Screen;
use self::theme::Theme;
use crate::Stop;
use crate::connect::{ConnectArgs, runtime};
use crate::submit::end_signals;

/// Answers that were not drawn yet.
const UPDATES: usize = 16;
/// Cancellations that were not sent yet.
const CANCELS: usize = 4;
/// Without an answer, the age of the last one is drawn this often.
const TICK: Duration = Duration::from_secs(1);

/// Arguments of `tally top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
pub(crate) fn main(args: &TopArgs) -> Result<(), Stop> {
    if !screen::is_possible() {
        return Err(Stop::Usage(
            "tally top needs a terminal with a screen as standard input and output\nhint: use `tally jobs --watch` \
             or `tally job ID --watch`, which also print to files and pipes"
                .into(),
        ));
    }
    let (send, updates) = mpsc::channel(UPDATES);
    let on_screen = Rc::new(Cell::new(false));
    let notice = {
        let (send, on_screen) = (send.clone(), on_screen.clone());
        move |text: &str| {
            if on_screen.get() {
                // If older answers are not drawn yet, the failure of the request follows.
                let _ = send.try_send(Update::Trouble(text.to_string()));
            } else {
                eprintln!("{text}");
            }
        }
    };
    let mut client = args.connect.client(notice)?;
    block_on(&runtime()?, async {
        // Without a leader, the command ends like the others.
        let app = App::new(feed::cluster(&mut client).await?);
        let (open, opened) = watch::channel(None);
        let (cancel, cancels) = mpsc::channel(CANCELS);
        on_screen.set(true);
        let feed = feed::run(client, Questions { open: opened, cancel: cancels }, send);
        tokio::select! {
            done = show(app, updates, open, cancel) => done,
            () = feed => Ok(()),
        }
    })
}

fn failed(error: io::Error) -> Stop {
    Stop::Failed(format!("the terminal cannot be used: {error}"))
}

/// Draws and handles keys until the user leaves.
async fn show(
    mut app: App,
    mut updates: mpsc::Receiver<Update>,
    open: watch::Sender<Option<String>>,
    cancel: mpsc::Sender<String>,
) -> Result<(), Stop> {
    let (theme, started) = (Theme::of_environment(), Instant::now());
    let mut signals = end_signals()?;
    let mut screen = Screen::enter().map_err(failed)?;
    let mut keys = screen::keys().map_err(failed)?;
    loop {
        let painted = screen.draw(|buffer| paint::paint(&app, theme, started.elapsed(), buffer));
        app.fit(painted.map_err(failed)?);
        let mut key = tokio::select! {
            update = updates.recv() => {
                let waiting = std::iter::from_fn(|| updates.try_recv().ok());
                let all: Vec<Update> = update.into_iter().chain(waiting.take(UPDATES)).collect();
                all.into_iter().for_each(|update| app.update(update, started.elapsed()));
                None
            }
            key = keys.recv() => match key {
                Some(key) => Some(key),
                None => return Err(Stop::Failed("the terminal was closed".into())),
            },
            () = sleep(TICK) => None,
            () = signals.next() => return Err(Stop::Detached("the jobs of the cluster continue".into())),
        };
        // All keys that were pressed since the last drawing.
        while let Some(pressed) = key {
            if pressed == Key::Redraw {
                screen.clear().map_err(failed)?;
            }
            match app.key(pressed) {
                Action::Draw => {}
                Action::Quit => return Ok(()),
                Action::Open(id) => _ = open.send(Some(id)),
                Action::Close => _ = open.send(None),
                Action::Cancel(id) => {
                    app.notice = Some(match cancel.try_send(id) {
                        Ok(()) => "the cancellation is sent".into(),
                        Err(_) => "earlier cancellations have no answer yet".into(),
                    });
                }
            }
            key = keys.try_recv().ok();
        }
    }
}
