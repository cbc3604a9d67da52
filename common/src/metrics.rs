//! A page of metrics in the OpenMetrics text format, made for each request from counts that other modules keep.
//!
//! Not here: the counts themselves, and the server (`http`).

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::procfs;

/// The content type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of a sample's labels. The values come from small sets.
type Labels = Vec<(&'static str, String)>;

/// A page of metrics.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// A page with the metrics of all processes: version, processor time, memory.
    pub(crate) fn new() -> Self {
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

    /// Adds a value that can rise and fall.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.registry.register(name, help, gauge);
    }

    /// Adds a gauge with labels.
    pub fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    /// Adds a value that only grows. The suffix `_total` is added to its name.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    /// Adds a counter with labels.
    pub fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    /// The text of the page.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
}

/// What this process uses; zeros where the system does not report it.
fn usage() -> Usage {
    let resident = procfs::resident_bytes().unwrap_or_default().0;
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Usage { cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9, resident_bytes: resident as f64 }
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
    fn a_process_reports_its_usage() {
        let usage = usage();
        assert!(usage.resident_bytes > 65_536.0 && usage.cpu_seconds > 0.0);
    }
}
