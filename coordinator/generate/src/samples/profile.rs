//! The clients of a sample, and their pings. Every value is drawn from the client's number each time it is needed, so no
//! state per client is kept. Not here: the files, and the columns of pings.

use std::ops::Range;

use chrono::{Datelike, NaiveDate};

use crate::draw::{Draw, Poisson, key};
use crate::ids::{SAMPLES, Steering};
use crate::options::Options;
use crate::strings::{COUNTRIES, SYSTEM_ADDONS, SYSTEM_SHARES};

/// Add-ons with code below this one are never self-installed: 8 system add-ons, 4 Shield studies, and 4 others.
pub(super) const SPECIAL: u32 = 16;
/// Codes of Shield studies, after the system add-ons.
pub(super) const STUDIES: Range<u32> = SYSTEM_ADDONS..12;
/// Number of locales; the first one is the most frequent.
pub(super) const LOCALES: u64 = 60;
/// Number of releases of a version.
pub(super) const MINORS: u64 = 4;
const CHANNEL_SHARES: [f64; 5] = [0.84, 0.08, 0.02, 0.05, 0.01];
const VERSION_SHARES: [f64; 8] = [0.6, 0.15, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01];
/// The samples whose first client sends tens of thousands of pings.
const BUSY_SAMPLES: [u32; 2] = [7, 42];
/// Days from 0001-01-01 (day 1) to 1970-01-01.
const UNIX_EPOCH_CE: i32 = 719_163;

// Keys of the parts of the seed and of a client.
const SIZES: u64 = 9 << 40;
const TRAITS: u64 = 10 << 40;
const PING_COUNT: u64 = 11 << 40;
const PINGS: u64 = 12 << 40;

/// The traits of a client, the same in all of its pings.
pub(super) struct Profile {
    /// The key of the client's random streams.
    key: u64,
    pub(super) sample: u32,
    pub(super) number: u32,
    /// None is the null client.
    pub(super) id: Option<[u8; 36]>,
    /// Day of the profile's creation, in days since 1970-01-01.
    created: i64,
    channel: usize,
    version: usize,
    locale: u64,
    pub(super) addons: Vec<Addon>,
}

/// An add-on as a client has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addon {
    pub(super) code: u32,
    foreign: bool,
    system: bool,
    web: bool,
    pub(super) installed: i32,
}

/// A ping without its elements. Null values are None.
pub(super) struct PingHead {
    pub(super) channel: Option<usize>,
    /// The version and its release.
    pub(super) version: Option<(usize, u64)>,
    pub(super) locale: Option<u64>,
    pub(super) created: Option<i64>,
    pub(super) system: usize,
    pub(super) country: u64,
    pub(super) subsession_length: i64,
    pub(super) document_id: [u8; 36],
    /// Whether an empty list is null.
    pub(super) null_list: bool,
}

/// The nullable fields of a list element, as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) code: Option<u32>,
    pub(super) foreign: Option<bool>,
    pub(super) system: Option<bool>,
    pub(super) web: Option<bool>,
    pub(super) day: Option<i32>,
}

impl Addon {
    /// The next element of this add-on: each field is null independently of the others.
    fn element(&self, draw: &mut Draw) -> Element {
        Element {
            code: (!draw.chance(0.0002)).then_some(self.code),
            foreign: (!draw.chance(0.0005)).then_some(self.foreign),
            system: (!draw.chance(0.0005)).then_some(self.system),
            web: (!draw.chance(0.01)).then_some(self.web),
            day: (!draw.chance(0.001)).then_some(self.installed),
        }
    }
}

/// The clients of all samples.
pub(super) struct Samples {
    seed: u64,
    /// Number of clients by sample.
    sizes: Vec<u32>,
    ping_counts: Poisson,
    steering: Steering,
    addons: u32,
    /// Days since 1970-01-01.
    day: i64,
}

impl Samples {
    /// The clients of validated options.
    pub(super) fn new(options: &Options, date: NaiveDate) -> Self {
        let seed = key(1, options.seed);
        let mut sizes = vec![0; SAMPLES as usize];
        let mut draw = Draw::new(key(seed, SIZES));
        for _ in 0..options.clients {
            sizes[draw.below(SAMPLES.into()) as usize] += 1;
        }
        Samples {
            seed,
            sizes,
            ping_counts: Poisson::new((options.pings - 0.5).max(0.0)),
            steering: Steering::new(),
            addons: options.addons,
            day: i64::from(date.num_days_from_ce() - UNIX_EPOCH_CE),
        }
    }

    /// The numbers of a sample's clients.
    pub(super) fn members(&self, sample: u32) -> Range<u32> {
        0..self.sizes[sample as usize]
    }

    fn key(&self, sample: u32, number: u32) -> u64 {
        key(key(self.seed, sample.into()), number.into())
    }

    /// The number of a client's pings.
    pub(super) fn ping_count(&self, sample: u32, number: u32) -> u32 {
        let mut draw = Draw::new(key(self.key(sample, number), PING_COUNT));
        let mut pings = self.ping_counts.draw(&mut draw).max(1);
        if draw.chance(0.002) {
            pings += 60;
        }
        if BUSY_SAMPLES.contains(&sample) && number == 0 {
            pings += self.sizes[sample as usize].min(50_000 / 20) * 20;
        }
        pings
    }

    /// A client's traits.
    pub(super) fn profile(&self, sample: u32, number: u32) -> Profile {
        let client = self.key(sample, number);
        let mut draw = Draw::new(key(client, TRAITS));
        let mut id = self.steering.uuid(&mut draw, sample);
        // Null ids, and ids that are no canonical UUID, exist in production; they remain in the folder of their sample.
        let id = match draw.below(20_000) {
            0 => None,
            1 => {
                id.make_ascii_uppercase();
                Some(id)
            }
            _ => Some(id),
        };
        let mut profile = Profile {
            key: client,
            sample,
            number,
            id,
            created: self.day - draw.below(2501) as i64,
            channel: draw.choice(&CHANNEL_SHARES),
            version: draw.choice(&VERSION_SHARES),
            locale: if draw.chance(0.4) { 0 } else { 1 + draw.below(LOCALES - 1) },
            addons: vec![],
        };
        let systems = if draw.chance(0.01) { 0 } else { 4 + draw.below(5) as u32 };
        for place in 0..systems {
            let addon = self.addon(place % SYSTEM_ADDONS, true, profile.created, &mut draw);
            profile.addons.push(addon);
        }
        let own = if draw.chance(0.35) { 0 } else { draw.geometric(0.35).min(60) };
        for _ in 0..own {
            let code = if draw.chance(0.03) {
                SYSTEM_ADDONS + draw.below((SPECIAL - SYSTEM_ADDONS).into()) as u32
            } else {
                SPECIAL + ((draw.pareto(1.1) * 12.0) as u32).min(self.addons - 1)
            };
            let addon = self.addon(code, false, profile.created, &mut draw);
            profile.addons.push(addon);
        }
        profile
    }

    fn addon(&self, code: u32, system: bool, created: i64, draw: &mut Draw) -> Addon {
        Addon {
            code,
            system,
            foreign: !system & draw.chance(0.22),
            web: draw.chance(0.6),
            installed: (created + draw.below(900) as i64).min(self.day) as i32,
        }
    }

    /// A client's ping, and its elements.
    pub(super) fn ping<'a>(
        &self,
        profile: &'a Profile,
        number: u32,
    ) -> (PingHead, impl Iterator<Item = Element> + use<'a>) {
        let mut draw = Draw::new(key(profile.key, PINGS + u64::from(number)));
        let minor = draw.below(MINORS);
        let head = PingHead {
            channel: (!draw.chance(0.0001)).then_some(profile.channel),
            version: (!draw.chance(0.0001)).then_some((profile.version, minor)),
            locale: (!draw.chance(0.0005)).then_some(profile.locale),
            created: (!draw.chance(0.01)).then_some(profile.created),
            system: draw.choice(&SYSTEM_SHARES),
            country: draw.below(COUNTRIES.into()),
            subsession_length: 60 + draw.below(86_340) as i64,
            document_id: crate::ids::random_uuid(&mut draw),
            null_list: draw.chance(0.5),
        };
        (head, profile.addons.iter().map(move |addon| addon.element(&mut draw)))
    }
}
