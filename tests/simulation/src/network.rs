//! The streams between workers and coordinators: two ordered queues each, with delays. A broken stream loses what is under
//! way, and its ends learn that at different times or not at all.
//!
//! Not here: reads between workers (`worker::fetch`), the meaning of messages.

use crate::event::{Arrival, End, Event, Wire};
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, say};

/// One stream.
pub struct Stream {
    /// The worker.
    pub worker: Owner,
    /// The coordinator.
    pub coordinator: Owner,
    /// What is sent does not arrive.
    broken: bool,
    /// Whether each end still uses the stream.
    open: [bool; 2],
    /// When the last message to each end arrives.
    last: [Micros; 2],
    /// Messages under way to each end.
    under_way: [usize; 2],
}

/// All streams of a schedule.
#[derive(Default)]
pub struct Network {
    streams: Vec<Stream>,
}

fn index(end: End) -> usize {
    match end {
        End::Worker => 0,
        End::Coordinator => 1,
    }
}

fn other(end: End) -> End {
    match end {
        End::Worker => End::Coordinator,
        End::Coordinator => End::Worker,
    }
}

impl Network {
    /// Opens a stream.
    pub fn open(&mut self, worker: Owner, coordinator: Owner) -> usize {
        self.streams.push(Stream {
            worker,
            coordinator,
            broken: false,
            open: [true; 2],
            last: [0; 2],
            under_way: [0; 2],
        });
        self.streams.len() - 1
    }

    /// The process at one end.
    pub fn owner(&self, stream: usize, end: End) -> Owner {
        match end {
            End::Worker => self.streams[stream].worker,
            End::Coordinator => self.streams[stream].coordinator,
        }
    }

    /// Whether an end uses the stream.
    pub fn is_open(&self, stream: usize, end: End) -> bool {
        self.streams[stream].open[index(end)]
    }

    /// Messages under way to an end. Those of a broken stream never arrive.
    pub fn under_way(&self, stream: usize, to: End) -> usize {
        self.streams[stream].under_way[index(to)]
    }

    /// Sends a message to an end.
    pub fn send(&mut self, stream: usize, to: End, wire: Wire) {
        let it = &mut self.streams[stream];
        it.under_way[index(to)] += 1;
        if it.broken {
            return;
        }
        let last = &mut it.last[index(to)];
        world::with(|world| {
            let delay = match world.rng.chance(world.rates.message_late) {
                true => world.rng.between(50 * MILLISECOND, 4 * SECOND),
                false => world.rng.between(MILLISECOND / 5, 2 * MILLISECOND),
            };
            *last = (world.now + delay).max(*last + 1);
            world.at(*last, Event::Arrive(Box::new(Arrival { stream, wire })));
        });
    }

    /// A message arrives; false if the stream is broken, or the end no longer uses it.
    pub fn arrived(&mut self, stream: usize, to: End) -> bool {
        let it = &mut self.streams[stream];
        it.under_way[index(to)] = it.under_way[index(to)].saturating_sub(1);
        !it.broken && it.open[index(to)]
    }

    /// An end closes the stream. The other end learns it after what was sent before.
    pub fn close(&mut self, stream: usize, by: End) {
        let it = &mut self.streams[stream];
        if !std::mem::replace(&mut it.open[index(by)], false) || it.broken {
            return;
        }
        let to = other(by);
        if it.open[index(to)] {
            let at = it.last[index(to)];
            world::with(|world| {
                let delay = world.rng.between(MILLISECOND / 5, 2 * MILLISECOND);
                world.at(at.max(world.now + delay) + 1, Event::Ended(stream, to));
            });
        }
    }

    /// Breaks a stream. Each end learns it after that time, or never.
    pub fn cut(&mut self, stream: usize, worker: Option<Micros>, coordinator: Option<Micros>) {
        let it = &mut self.streams[stream];
        if std::mem::replace(&mut it.broken, true) {
            return;
        }
        say!(
            "network: stream {stream} breaks; the worker learns it {worker:?}, the coordinator {coordinator:?}"
        );
        for (end, after) in [(End::Worker, worker), (End::Coordinator, coordinator)] {
            if let (true, Some(after)) = (it.open[index(end)], after) {
                world::after(after, Event::Ended(stream, end));
            }
        }
    }

    /// The open streams of a process.
    pub fn of(&self, owner: Owner) -> Vec<usize> {
        let has = |it: &Stream| (it.worker == owner && it.open[0]) || (it.coordinator == owner && it.open[1]);
        (0..self.streams.len()).filter(|&at| has(&self.streams[at])).collect()
    }

    /// A process died: it uses none of its streams.
    pub fn died(&mut self, owner: Owner, silent: bool) {
        for stream in self.of(owner) {
            let end = if self.streams[stream].worker == owner { End::Worker } else { End::Coordinator };
            self.streams[stream].open[index(end)] = false;
            let learns = (!silent).then(|| world::draw(|rng| rng.between(MILLISECOND, 20 * MILLISECOND)));
            self.cut(stream, learns, learns);
        }
    }
}
