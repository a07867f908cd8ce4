//! What a server process and its children hold and use, as Linux counts it.

use std::fs;

/// A server and everything that it started.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// The process `root` and its children, as they are now.
    pub(crate) fn of(root: u32) -> Self {
        let children = fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Self(std::iter::once(root).chain(children).collect())
    }

    /// Resident memory in KiB, where pages that several of them share count once.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.0.iter().map(|pid| field(&read(*pid, "smaps_rollup"), "Pss:")).sum()
    }

    /// Processor time that was spent, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        // Linux reports in hundredths of a second (`USER_HZ`) on every architecture that we know.
        self.0.iter().map(|pid| ticks(&read(*pid, "stat")) as f64 / 100.0).sum()
    }
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time; the fields are counted from behind the name, which may hold anything.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |parts| parts.1).split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}
