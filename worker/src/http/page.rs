//! A page of metrics in the OpenMetrics text format, made anew for each look from what is counted
//! elsewhere.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the page is, for whoever reads it.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of a sample's labels; values come from small sets.
type Labels = Vec<(&'static str, String)>;

/// A page of metrics under way.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// A page with what every process tells: its version, processor time, memory.
    pub(super) fn new() -> Self {
        let mut page = Page { registry: Registry::default() };
        page.gauges(
            "tally_build_info",
            "Version of the program; always 1",
            [(vec![("version", env!("CARGO_PKG_VERSION").into())], 1.0)],
        );
        let usage = usage();
        page.counter("process_cpu_seconds", "Processor time used, in seconds", usage.cpu_seconds);
        page.gauge("process_resident_memory_bytes", "Memory in use, in bytes", usage.resident_bytes);
        page
    }

    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.registry.register(name, help, gauge);
    }

    /// The same by labels.
    pub fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    /// A value that only grows; `_total` is added to its name.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    /// The same by labels.
    pub fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    /// The whole page.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
}

/// What this process uses, as far as the system tells.
fn usage() -> Usage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    let kib: f64 = resident.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0.0);
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Usage { cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9, resident_bytes: kib * 1024.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_text_that_prometheus_reads() {
        let mut page = Page::new();
        page.gauge("tally_slots", "Slots of all workers", 3.0);
        let ends = ["done", "failed"].map(|outcome| (vec![("outcome", outcome.to_string())], 7.0));
        page.counters("tally_jobs", "Jobs that ended", ends);
        let text = page.text();
        for line in [
            "# TYPE tally_slots gauge",
            "tally_slots 3.0",
            "# TYPE tally_jobs counter",
            "tally_jobs_total{outcome=\"failed\"} 7.0",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_process_knows_what_it_uses() {
        let usage = usage();
        assert!(usage.resident_bytes > 65_536.0 && usage.cpu_seconds > 0.0);
    }
}
