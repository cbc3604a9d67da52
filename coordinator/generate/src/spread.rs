//! The file of each ping, and the order of pings in a file. Not here: the contents of pings ([`crate::population`]).

use crate::draw::{Draw, key};
use crate::ids::SAMPLES;
use crate::population::Population;

/// A ping: the number of its client and its own number, 8 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PingRef {
    pub(crate) client: u32,
    pub(crate) ping: u32,
}

/// How the pings of a day are distributed over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// As in production: one file per sample, and one for the null client.
    BySample,
    /// By a hash of client and ping: each file has pings of all clients.
    Shuffled,
}

/// The part of the key that decides the order of a file's pings.
const ORDER: u64 = 7 << 40;

impl Spread {
    /// The number of files of each table; empty ones are not written.
    pub(crate) fn files(self) -> u32 {
        match self {
            Spread::BySample => SAMPLES + 1,
            Spread::Shuffled => SAMPLES,
        }
    }

    /// The pings of a file in the order of their rows, with clients in random order. Shuffled days iterate over all clients
    /// for each file, about a quarter of all work, so that a thread has only one open file.
    pub(crate) fn pings(self, population: &Population, seed: u64, file: u32) -> Vec<PingRef> {
        let samples = match self {
            Spread::BySample => file..file + 1,
            Spread::Shuffled => 0..SAMPLES + 1,
        };
        let mut pings = Vec::new();
        for sample in samples {
            for client in population.members(sample) {
                let (count, client_key) = population.ping_count(client, sample);
                let all = (0..count).map(|ping| PingRef { client, ping });
                match self {
                    Spread::BySample => pings.extend(all),
                    Spread::Shuffled => {
                        let files = Population::files_of(client_key);
                        pings.extend(all.zip(files).filter(|(_, its)| *its == file).map(|(ping, _)| ping));
                    }
                }
            }
        }
        Draw::new(key(key(seed, ORDER), file.into())).permute(&mut pings);
        pings
    }
}
