//! The clients of a day and their pings. Every client and ping is drawn from its number each time it is needed, so no
//! state per client is kept. Not here: the files and the order of pings ([`crate::spread`]).

use std::ops::Range;

use chrono::{Datelike, NaiveDate};

use crate::client::{Addon, Client, Ping};
use crate::draw::{Draw, Poisson, key};
use crate::ids::{SAMPLES, Steering, random_uuid, sample_of};
use crate::options::{Options, Overactive};
use crate::strings::{CHANNEL_SHARES, COUNTRIES, CUSTOM_THEMES, SYSTEM_ADDONS, SYSTEM_SHARES};

/// The sample of the null client, after those of the ids.
pub(crate) const NULL_SAMPLE: u32 = SAMPLES;
/// The samples whose first client sends tens of thousands of pings.
const BUSY_SAMPLES: [u32; 2] = [7, 42];
/// Days from 0001-01-01 (day 1) to 1970-01-01.
const UNIX_EPOCH_CE: i32 = 719_163;

// Keys of the parts of the seed and of a client.
const SAMPLE_SIZES: u64 = 1 << 40;
const OVERACTIVE: u64 = 2 << 40;
const TRAITS: u64 = 3 << 40;
const PING_COUNT: u64 = 4 << 40;
const PINGS: u64 = 5 << 40;
const FILES: u64 = 6 << 40;

/// All clients of the day, numbered sample by sample; the null client comes last.
#[derive(Debug)]
pub(crate) struct Population {
    /// Keys of the samples.
    samples: Vec<u64>,
    overactive_key: u64,
    /// The first number of each sample, then the number of all clients.
    starts: Vec<u32>,
    overactive: Option<(u32, Overactive)>,
    null_pings: u32,
    ping_counts: Poisson,
    steering: Steering,
    addons: u32,
    /// Days since 1970-01-01.
    day: i64,
}

impl Population {
    /// The population of validated options.
    pub(crate) fn new(options: &Options, date: NaiveDate) -> Self {
        let seed = key(0, options.seed);
        let mut sizes = [0; SAMPLES as usize + 1];
        let mut draw = Draw::new(key(seed, SAMPLE_SIZES));
        for _ in 0..options.clients {
            sizes[draw.below(SAMPLES.into()) as usize] += 1;
        }
        sizes[NULL_SAMPLE as usize] = 1;
        let overactive_key = key(seed, OVERACTIVE);
        let overactive_id = random_uuid(&mut Draw::new(key(overactive_key, TRAITS)));
        let overactive_sample = sample_of(&overactive_id) as usize;
        sizes[overactive_sample] += u32::from(options.overactive.is_some());
        let starts: Vec<u32> = std::iter::once(0)
            .chain(sizes.iter().scan(0, |sum, size| {
                *sum += size;
                Some(*sum)
            }))
            .collect();
        Population {
            samples: (0..=NULL_SAMPLE).map(|sample| key(seed, sample.into())).collect(),
            overactive_key,
            overactive: options.overactive.map(|o| (starts[overactive_sample + 1] - 1, o)),
            starts,
            null_pings: (options.clients / 1000).max(10) as u32,
            ping_counts: Poisson::new((options.pings - 0.5).max(0.0)),
            steering: Steering::new(),
            addons: options.addons,
            day: i64::from(date.num_days_from_ce() - UNIX_EPOCH_CE),
        }
    }

    /// Distinct client ids, the null one included.
    pub(crate) fn clients(&self) -> u32 {
        self.starts[SAMPLES as usize + 1]
    }

    /// The numbers of a sample's clients.
    pub(crate) fn members(&self, sample: u32) -> Range<u32> {
        self.starts[sample as usize]..self.starts[sample as usize + 1]
    }

    /// The sample of the overactive client.
    pub(crate) fn overactive_sample(&self) -> Option<u32> {
        self.overactive.map(|(number, _)| self.sample(number))
    }

    fn sample(&self, number: u32) -> u32 {
        self.starts.partition_point(|&start| start <= number) as u32 - 1
    }

    fn overactive(&self, number: u32) -> Option<Overactive> {
        self.overactive.filter(|&(client, _)| client == number).map(|(_, what)| what)
    }

    /// The key of a client's streams. It depends on the position in the sample, so that an overactive client does not
    /// change other clients.
    fn key(&self, number: u32, sample: u32) -> u64 {
        match self.overactive(number) {
            Some(_) => self.overactive_key,
            None => key(self.samples[sample as usize], (number - self.starts[sample as usize]).into()),
        }
    }

    /// The number of pings of a client of `sample`, and the client's key.
    pub(crate) fn ping_count(&self, number: u32, sample: u32) -> (u32, u64) {
        let client = self.key(number, sample);
        if let Some(overactive) = self.overactive(number) {
            return (overactive.pings, client);
        }
        if sample == NULL_SAMPLE {
            return (self.null_pings, client);
        }
        let mut draw = Draw::new(key(client, PING_COUNT));
        let mut pings = self.ping_counts.draw(&mut draw).max(1);
        if draw.chance(0.002) {
            pings += 60;
        }
        if BUSY_SAMPLES.contains(&sample) && number == self.starts[sample as usize] {
            pings += self.busy_pings(sample);
        }
        (pings, client)
    }

    /// The additional pings of the first client of a busy sample: 20 for each client of the sample, at most 50,000.
    fn busy_pings(&self, sample: u32) -> u32 {
        let members = self.members(sample);
        let overactive = self.overactive.is_some_and(|(client, _)| members.contains(&client));
        let usual = members.len() as u32 - u32::from(overactive);
        if usual > 1 { usual.min(50_000 / 20) * 20 } else { 0 }
    }

    /// The file of each of a client's pings, in their order, if pings are distributed over all files.
    pub(crate) fn files_of(client_key: u64) -> impl Iterator<Item = u32> {
        let mut draw = Draw::new(key(client_key, FILES));
        std::iter::repeat_with(move || draw.below(SAMPLES.into()) as u32)
    }

    /// Sets a client's traits.
    pub(crate) fn client(&self, number: u32, into: &mut Client) {
        let sample = self.sample(number);
        into.key = self.key(number, sample);
        let mut draw = Draw::new(key(into.key, TRAITS));
        let overactive = self.overactive(number);
        into.id = match overactive {
            Some(_) => Some(random_uuid(&mut draw)),
            None if sample == NULL_SAMPLE => None,
            None => {
                let mut id = self.steering.uuid(&mut draw, sample);
                // Ids that are no canonical UUID exist in production; they remain in the folder of their sample.
                if draw.chance(0.0001) {
                    id.make_ascii_uppercase();
                }
                Some(id)
            }
        };
        into.created = self.day - 2500 + draw.below(2501) as i64;
        into.default_theme = draw.chance(0.88);
        into.addons.clear();
        match overactive {
            Some(overactive) => self.overactive_addons(overactive.addons, &mut draw, into),
            None => self.usual_addons(&mut draw, into),
        }
    }

    fn usual_addons(&self, draw: &mut Draw, into: &mut Client) {
        let mut own = draw.geometric(0.35).min(60);
        if draw.chance(0.35) {
            own = 0;
        }
        let system = if draw.chance(0.01) { 0 } else { 4 + draw.below(5) as u32 };
        for code in 0..system {
            let (install_day, update_day) = self.days(into.created, draw);
            into.addons.push(Addon {
                code,
                foreign_install: false,
                user_disabled: false,
                app_disabled: false,
                is_system: true,
                install_day,
                update_day,
            });
        }
        for _ in 0..own {
            // A few popular add-ons and a long tail; occasionally a client has an add-on twice.
            let rank = ((draw.pareto(1.1) * 12.0) as u32).min(self.addons - 1);
            let foreign_install = draw.chance(0.22);
            let user_disabled = draw.chance(0.12);
            let app_disabled = draw.chance(0.05);
            let (install_day, update_day) = self.days(into.created, draw);
            into.addons.push(Addon {
                code: SYSTEM_ADDONS + rank,
                foreign_install,
                user_disabled,
                app_disabled,
                is_system: false,
                install_day,
                update_day,
            });
        }
    }

    /// The add-ons of the overactive client: all of them distinct and active.
    fn overactive_addons(&self, count: u32, draw: &mut Draw, into: &mut Client) {
        let first = draw.below(self.addons.into()) as u32;
        for offset in 0..count {
            let foreign_install = draw.chance(0.22);
            let (install_day, update_day) = self.days(into.created, draw);
            into.addons.push(Addon {
                code: SYSTEM_ADDONS + (first + offset) % self.addons,
                foreign_install,
                user_disabled: false,
                app_disabled: false,
                is_system: false,
                install_day,
                update_day,
            });
        }
    }

    /// The days when an add-on was installed and last updated: between the creation of the profile and the day.
    fn days(&self, created: i64, draw: &mut Draw) -> (i32, i32) {
        let installed = (created + draw.below(900) as i64).min(self.day);
        let updated = (installed + draw.below(300) as i64).min(self.day);
        (installed as i32, updated as i32)
    }

    /// A client's ping, and the stream for its add-on rows, in the order of the add-ons.
    pub(crate) fn ping(client: &Client, number: u32) -> (Ping, Draw) {
        let mut draw = Draw::new(key(client.key, PINGS + u64::from(number)));
        let default_theme = client.default_theme ^ draw.chance(0.01);
        let custom = 1 + draw.below(CUSTOM_THEMES.into()) as u32;
        let theme = if default_theme { 0 } else { custom };
        let ping = Ping {
            theme: (!draw.chance(0.03)).then_some(theme),
            profile_creation_date: (!draw.chance(0.01)).then_some(client.created),
            channel: draw.choice(&CHANNEL_SHARES),
            system: draw.choice(&SYSTEM_SHARES),
            country: draw.below(COUNTRIES.into()),
            subsession_length: 60 + draw.below(86_340) as i64,
            document_id: random_uuid(&mut draw),
        };
        (ping, draw)
    }
}
