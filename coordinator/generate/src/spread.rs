//! Which pings lie in which file, and in what order. What a ping holds is [`crate::population`]'s matter.

use crate::draw::{Draw, key};
use crate::ids::SAMPLES;
use crate::population::Population;

/// A ping by its client's number and its own, 8 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PingRef {
    pub(crate) client: u32,
    pub(crate) ping: u32,
}

/// How a day's pings are spread over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// As in production: a file a sample, and one for the null client.
    BySample,
    /// By a hash of client and ping: each file holds pings of everyone.
    Shuffled,
}

/// Part of the key that orders a file's pings.
const ORDER: u64 = 7 << 40;

impl Spread {
    /// The number of files of each table; some may turn out empty and are not written.
    pub(crate) fn files(self) -> u32 {
        match self {
            Spread::BySample => SAMPLES + 1,
            Spread::Shuffled => SAMPLES,
        }
    }

    /// The pings of a file in the order of their rows: clients thoroughly mixed. Shuffled days walk over all clients for
    /// each file, about a quarter of the whole work, in exchange for one open file a thread.
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
