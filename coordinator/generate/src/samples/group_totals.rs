//! The totals of a correct `addon_aggregates_v2` of the day, computed client by client from the random numbers of the rows.
//! Not here: any code of the engine, so that its bugs cannot affect the totals.

use serde::{Deserialize, Serialize};

use super::profile::{Element, Profile, SPECIAL, STUDIES, Samples};

/// The totals of a correct result, and the sizes of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleTotals {
    /// The day, as YYYYMMDD.
    pub date: String,
    /// Rows of `addon_aggregates_v2`.
    pub rows: u64,
    /// Distinct clients with rows, by sample; null is one of each sample.
    pub n_clients: u64,
    /// Sums of the columns with these names.
    pub n_self_installed_addons: u64,
    /// As above.
    pub n_shield_addons: u64,
    /// As above.
    pub n_foreign_installed_addons: u64,
    /// As above.
    pub n_system_addons: u64,
    /// As above.
    pub n_web_extensions: u64,
    /// Rows of `main_summary`.
    pub main_summary_rows: u64,
    /// Elements of all lists.
    pub elements: u64,
}

impl SampleTotals {
    pub(super) fn add(&mut self, other: &SampleTotals) {
        self.rows += other.rows;
        self.n_clients += other.n_clients;
        self.n_self_installed_addons += other.n_self_installed_addons;
        self.n_shield_addons += other.n_shield_addons;
        self.n_foreign_installed_addons += other.n_foreign_installed_addons;
        self.n_system_addons += other.n_system_addons;
        self.n_web_extensions += other.n_web_extensions;
        self.main_summary_rows += other.main_summary_rows;
        self.elements += other.elements;
    }
}

/// Channel, version and locale.
type Group = (Option<usize>, Option<usize>, Option<u64>);

/// What an element is identified by; null flags that count as false are false.
type Identity = (Group, Option<i64>, Element, bool);

/// Counts the clients of a sample.
#[derive(Default)]
pub(super) struct Counter {
    totals: SampleTotals,
    /// The elements of a client.
    elements: Vec<Identity>,
    /// Those of the null clients, which are one.
    of_null: Vec<Identity>,
}

impl Counter {
    /// Counts all pings of a client.
    pub(super) fn add(&mut self, samples: &Samples, profile: &Profile) {
        let into = if profile.id.is_some() { &mut self.elements } else { &mut self.of_null };
        let pings = samples.ping_count(profile.sample, profile.number);
        self.totals.main_summary_rows += u64::from(pings);
        self.totals.elements += u64::from(pings) * profile.addons.len() as u64;
        for ping in 0..pings {
            let (head, elements) = samples.ping(profile, ping);
            let group = (head.channel, head.version.map(|(version, _)| version), head.locale);
            into.extend(elements.map(|element| {
                let Element { code, foreign, system, web, .. } = element;
                let own = code.is_some_and(|code| code >= SPECIAL)
                    && (foreign, system) == (Some(false), Some(false));
                let is_true = |flag: Option<bool>| Some(flag == Some(true));
                (group, head.created, Element { system: is_true(system), web: is_true(web), ..element }, own)
            }));
            // The memory of very many pings is bounded by their distinct elements.
            if into.len() > 1 << 20 {
                into.sort_unstable();
                into.dedup();
            }
        }
        if profile.id.is_some() {
            let elements = std::mem::take(&mut self.elements);
            self.elements = self.count(elements);
        }
    }

    /// Counts the distinct elements of a client; returns the empty vector.
    fn count(&mut self, mut elements: Vec<Identity>) -> Vec<Identity> {
        elements.sort_unstable();
        elements.dedup();
        let totals = &mut self.totals;
        totals.n_clients += u64::from(!elements.is_empty());
        totals.rows += elements.chunk_by(|a, b| a.0 == b.0).count() as u64;
        for (_, _, element, own) in &elements {
            totals.n_self_installed_addons += u64::from(*own);
            totals.n_shield_addons += u64::from(element.code.is_some_and(|code| STUDIES.contains(&code)));
            totals.n_foreign_installed_addons += u64::from(element.foreign == Some(true));
            totals.n_system_addons += u64::from(element.system == Some(true));
            totals.n_web_extensions += u64::from(element.web == Some(true));
        }
        elements.clear();
        elements
    }

    /// The totals of the sample.
    pub(super) fn finish(mut self) -> SampleTotals {
        let of_null = std::mem::take(&mut self.of_null);
        self.count(of_null);
        self.totals
    }
}
