//! What Prometheus asks of every process.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks a second in what Linux tells programs, on every architecture.
const TICKS: f64 = 100.0;

/// Memory and start of this process, read when somebody asks. What the system does not tell is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, help, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode(metric)
        };
        let status = std::fs::read_to_string("/proc/self/status");
        let resident = status.ok().and_then(|status| resident_bytes(&status));
        gauge("process_resident_memory_bytes", "Resident memory size in bytes", resident)?;
        let stat = std::fs::read_to_string("/proc/self/stat");
        let system = std::fs::read_to_string("/proc/stat");
        let start = stat.ok().zip(system.ok()).and_then(|(stat, system)| start(&stat, &system));
        let help = "Start time of the process since unix epoch in seconds";
        gauge("process_start_time_seconds", help, start)
    }
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// From `/proc/self/stat`, whose 22nd field is the start in ticks since the machine's, and `/proc/stat`.
fn start(stat: &str, system: &str) -> Option<f64> {
    // The second field is a name in parentheses, which may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let machine = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let machine: f64 = machine.trim().parse().ok()?;
    Some(machine + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_start_are_read_from_what_linux_writes() {
        let status = "Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t  2048 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(2048.0 * 1024.0));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 5 0 250 9 9 1";
        assert_eq!(start(stat, "cpu  1 2\nbtime 1700000000\n"), Some(1_700_000_002.5));
        assert_eq!(start("7 (a) S 1", "btime 1700000000\n"), None);
        assert_eq!(start(stat, "cpu 1\n"), None);
    }
}
