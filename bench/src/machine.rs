//! Facts of the machine, without which a figure says nothing.

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::utsname::uname;
use serde_json::{Value, json};
use std::fs;

/// What the numbers depend on.
pub fn facts() -> Value {
    let kernel = uname().map(|name| name.release().to_string_lossy().into_owned());
    json!({
        "processor": info("model name"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "hypervisor": info("flags").split_whitespace().any(|flag| flag == "hypervisor"),
        "kernel": kernel.unwrap_or_default(),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "somaxconn": read("/proc/sys/net/core/somaxconn"),
        "descriptors": descriptors(),
        "load": read("/proc/loadavg"),
    })
}

/// One line per fact.
pub fn print(facts: &Value) {
    for (name, value) in facts.as_object().into_iter().flatten() {
        println!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
}

/// How many descriptors a process may have.
pub fn descriptors() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX)
}

fn info(name: &str) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
