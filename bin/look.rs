//! Looks at the status of a server, and what happened between two of them.
//!
//! Pure: the texts of the status pipe in, figures out. Knows the names of section 4 of the contract; what
//! is missing is `None`. Invariant: time is the server's own, as each status says it; between two servers,
//! or where the clock went back, there are no rates.

use serde_json::Value as Json;

/// One status object.
#[derive(Clone, Debug)]
pub(crate) struct Look(Json);

impl Look {
    /// Reads what the status pipe gave.
    ///
    /// # Errors
    /// It is no JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let read = serde_json::from_str(text);
        read.map(Self).map_err(|error| format!("the status cannot be read: {error}"))
    }

    /// A member by its JSON pointer; null if there is none.
    pub(crate) fn at(&self, pointer: &str) -> &Json {
        self.0.pointer(pointer).unwrap_or(&Json::Null)
    }

    pub(crate) fn number(&self, pointer: &str) -> Option<u64> {
        self.at(pointer).as_u64()
    }

    /// The objects in a list; none if it is missing.
    pub(crate) fn list(&self, name: &str) -> &[Json] {
        self.0[name].as_array().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn workers(&self) -> &[Json] {
        self.list("workers")
    }

    /// A figure of all workers together; `None` if no worker has it.
    pub(crate) fn sum(&self, name: &str) -> Option<u64> {
        self.workers().iter().filter_map(|worker| worker[name].as_u64()).reduce(|a, b| a + b)
    }

    /// Added processes but the timer, which stands first among them and by itself.
    pub(crate) fn added(&self) -> &[Json] {
        self.list("processes").get(1..).unwrap_or(&[])
    }
}

/// What happened in a second, of one worker or of all.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) messages_in: Option<f64>,
    pub(crate) messages_out: Option<f64>,
    pub(crate) bytes_in: Option<f64>,
    pub(crate) bytes_out: Option<f64>,
    pub(crate) accepted: Option<f64>,
    /// Of one core.
    pub(crate) cpu_percent: Option<f64>,
}

/// What happened between two looks.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Between {
    pub(crate) span_ms: u64,
    /// By slot.
    pub(crate) workers: Vec<Rates>,
    pub(crate) total: Rates,
}

impl Between {
    /// `None` if the two are not of one server, or no time has passed.
    pub(crate) fn of(before: &Look, now: &Look) -> Option<Self> {
        let span_ms = span_ms(before, now)?;
        let workers: Vec<Rates> = (now.workers().iter().enumerate())
            .map(|(slot, worker)| match before.workers().get(slot) {
                Some(earlier) => Rates::of(earlier, worker, span_ms),
                None => Rates::default(),
            })
            .collect();
        let total = workers.iter().fold(Rates::default(), |total, one| total.plus(one));
        Some(Self { span_ms, workers, total })
    }
}

fn span_ms(before: &Look, now: &Look) -> Option<u64> {
    let (pid, uptime) = (now.number("/pid")?, now.number("/uptime_ms")?);
    let span = uptime.checked_sub(before.number("/uptime_ms")?)?;
    (span > 0 && before.number("/pid") == Some(pid)).then_some(span)
}

impl Rates {
    fn of(before: &Json, now: &Json, span_ms: u64) -> Self {
        let rate = |name: &str| {
            // Counters of a slot never go back; one that does is of a server that is not ours.
            let grown = now[name].as_u64()?.checked_sub(before[name].as_u64()?)?;
            Some(grown as f64 * 1_000.0 / span_ms as f64)
        };
        // The clock of a process begins with it.
        let same = now["pid"] == before["pid"];
        let cpu = if same { rate("cpu_ms") } else { None };
        Self {
            messages_in: rate("messages_in"),
            messages_out: rate("messages_out"),
            bytes_in: rate("bytes_in"),
            bytes_out: rate("bytes_out"),
            accepted: rate("accepted"),
            // Milliseconds of processor in a second, of a thousand.
            cpu_percent: cpu.map(|ms| ms / 10.0),
        }
    }

    fn plus(self, other: &Self) -> Self {
        let add = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self {
            messages_in: add(self.messages_in, other.messages_in),
            messages_out: add(self.messages_out, other.messages_out),
            bytes_in: add(self.bytes_in, other.bytes_in),
            bytes_out: add(self.bytes_out, other.bytes_out),
            accepted: add(self.accepted, other.accepted),
            cpu_percent: add(self.cpu_percent, other.cpu_percent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(pid: u64, uptime_ms: u64, workers: &[(u64, u64, u64)]) -> Look {
        let workers: Vec<Json> = workers
            .iter()
            .map(|(pid, messages, cpu_ms)| json!({"pid": pid, "messages_in": messages, "cpu_ms": cpu_ms}))
            .collect();
        Look(json!({"pid": pid, "uptime_ms": uptime_ms, "workers": workers}))
    }

    #[test]
    fn rates_are_what_was_counted_between_by_the_clock_of_the_server() {
        let before = look(1, 10_000, &[(7, 100, 500), (8, 40, 100)]);
        let now = look(1, 12_000, &[(7, 300, 700), (9, 50, 3)]);
        let between = Between::of(&before, &now).unwrap();
        assert_eq!(between.span_ms, 2_000);
        assert_eq!(between.workers[0].messages_in, Some(100.0));
        assert_eq!(between.workers[0].cpu_percent, Some(10.0));
        assert_eq!(between.workers[1].messages_in, Some(5.0), "counters go on over a slot's lives");
        assert_eq!(between.workers[1].cpu_percent, None, "another process");
        assert_eq!(between.total.messages_in, Some(105.0));
        assert_eq!((between.total.cpu_percent, between.total.bytes_in), (Some(10.0), None));
    }

    #[test]
    fn there_are_none_between_two_servers_nor_where_the_clock_went_back() {
        let now = look(1, 5_000, &[(7, 9, 9)]);
        for before in [
            look(2, 4_000, &[(7, 0, 0)]),
            look(1, 5_000, &[(7, 0, 0)]),
            look(1, 6_000, &[(7, 0, 0)]),
            Look(json!({})),
        ] {
            assert_eq!(Between::of(&before, &now), None, "{before:?}");
        }
        let fewer = look(1, 4_000, &[]);
        assert_eq!(Between::of(&fewer, &now).unwrap().workers, [Rates::default()]);
        let back = look(1, 4_000, &[(7, 10, 10)]);
        assert_eq!(Between::of(&back, &now).unwrap().workers[0].messages_in, None);
    }

    #[test]
    fn what_is_missing_is_none() {
        let empty = Look::parse("{}").unwrap();
        assert_eq!((empty.number("/pid"), empty.sum("connections")), (None, None));
        assert!(empty.workers().is_empty() && empty.added().is_empty());
        assert!(Look::parse("{").is_err());
    }
}
