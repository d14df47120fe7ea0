//! Memory and processor time of a process, as the kernel tells them.

use std::fs;

/// Kernel ticks per second in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux architecture we run on.
const TICKS_PER_SECOND: u64 = 100;
/// Page size in `/proc/PID/statm`.
const PAGE_BYTES: u64 = 4096;

/// Figures of one process; zero where it is gone.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct ProcessFigures {
    pub(super) rss_bytes: u64,
    pub(super) cpu_ms: u64,
}

impl ProcessFigures {
    pub(super) fn of(pid: u64) -> Self {
        if pid == 0 {
            return Self::default();
        }
        Self {
            rss_bytes: resident_pages(pid).unwrap_or(0) * PAGE_BYTES,
            cpu_ms: cpu_ticks(pid).unwrap_or(0) * 1_000 / TICKS_PER_SECOND,
        }
    }
}

fn resident_pages(pid: u64) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
}

fn cpu_ticks(pid: u64) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is fields 3 and on.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
