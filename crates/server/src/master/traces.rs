//! Traces: who asked for one, until when it lasts without another word of his, and what of it is told.
//!
//! `Leases` decides and takes `now`; the rest carries it out. Invariants: 1. A place in the shared words is
//! taken by exactly one lease. 2. Who does not renew in time, as after a `kill -9`, is forgotten, and the
//! name of a socket that nobody holds is removed. 3. A program that takes over by an upgrade knows of none: who traces begins anew.

use super::Master;
use super::control::Waiting;
use crate::app::App;
use crate::clock::Millis;
use crate::control::ControlAnswer;
use crate::sys::unix_socket;
use crate::traces::TRACES_MAX;
use serde_json::{Value as Json, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How long a trace lasts after the last word of who asked for it. He is to say one every second.
const LEASE_MS: u64 = 5_000;

#[derive(Debug)]
struct Lease {
    number: u64,
    until: Millis,
    socket: PathBuf,
}

/// The traces there are, by place.
#[derive(Debug)]
pub(super) struct Leases {
    places: [Option<Lease>; TRACES_MAX],
    /// How many there have been.
    begun: u64,
}

impl Leases {
    /// None yet, after so many under the programs before: a number never comes twice, so that who renews one
    /// of before an upgrade does not take another's for it.
    pub(super) fn after(begun: u64) -> Self {
        Self { places: Default::default(), begun }
    }

    /// Takes a place; its number and the place. `None`: all are taken.
    fn begin(&mut self, now: Millis, socket: PathBuf) -> Option<(u64, usize)> {
        let place = self.places.iter().position(Option::is_none)?;
        self.begun += 1;
        let number = self.begun;
        self.places[place] = Some(Lease { number, until: now + LEASE_MS, socket });
        Some((number, place))
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        self.places.iter().position(|one| one.as_ref().is_some_and(|one| one.number == number))
    }

    /// Lets a trace last; its place. `None`: there is none of this number.
    fn renew(&mut self, now: Millis, number: u64) -> Option<usize> {
        let place = self.place_of(number)?;
        if let Some(lease) = &mut self.places[place] {
            lease.until = now + LEASE_MS;
        }
        Some(place)
    }

    /// Takes a trace out.
    fn end(&mut self, place: usize) -> Option<Lease> {
        self.places.get_mut(place)?.take()
    }

    /// The places of those nobody has renewed.
    fn over(&self, now: Millis) -> Vec<usize> {
        let is_over = |one: &Option<Lease>| one.as_ref().is_some_and(|one| one.until <= now);
        (0..TRACES_MAX).filter(|place| is_over(&self.places[*place])).collect()
    }
}

impl<A: App> Master<A> {
    /// `{"verb":"trace","user":…,"socket":…}`.
    pub(super) fn begin_trace(&mut self, who: Waiting, user: &str, socket: &str) -> ControlAnswer {
        if !is_trace_socket(socket) {
            return ControlAnswer::refused("\"socket\" is no name such as trace.1.sock");
        }
        let found = self.hook(|app, master| {
            app.subject(user).map(|subject| (subject, app.traced(master, user)))
        });
        let Some((subject, sessions)) = found.flatten() else {
            return ControlAnswer::refused(format!("{user:?} is nobody who could be traced here"));
        };
        let path = self.run_dir.dir().path().join(socket);
        let Some((number, place)) = self.leases.begin(self.now, path.clone()) else {
            return ControlAnswer::refused(format!(
                "{TRACES_MAX} traces are active already: end one first"
            ));
        };
        if !self.shared.traces.begin(place, subject, &path) {
            self.leases.end(place);
            return ControlAnswer::refused(
                "the path of the run directory is too long for a socket",
            );
        }
        let (uid, pid) = self.control.peer(who).unwrap_or_default();
        tracing::info!(trace = number, user, uid, pid, "a trace begins");
        ControlAnswer::done(json!({"trace": number, "sessions": sessions}))
    }

    /// `{"verb":"trace-renew","trace":…}`.
    pub(super) fn renew_trace(&mut self, number: u64) -> ControlAnswer {
        match self.leases.renew(self.now, number) {
            Some(place) => {
                let counts = self.shared.traces.counts_of(place);
                ControlAnswer::done(json!({"sent": counts.sent, "dropped": counts.dropped}))
            }
            None => ControlAnswer::refused("there is no such trace any more"),
        }
    }

    /// `{"verb":"trace-end","trace":…}`.
    pub(super) fn end_trace(&mut self, number: u64) -> ControlAnswer {
        match self.leases.place_of(number) {
            Some(place) => {
                self.close_trace(place, "ended");
                ControlAnswer::done(Json::Null)
            }
            None => ControlAnswer::refused("there is no such trace any more"),
        }
    }

    /// Forgets who has not renewed.
    pub(super) fn end_stale_traces(&mut self) {
        for place in self.leases.over(self.now) {
            self.close_trace(place, "not renewed");
        }
    }

    fn close_trace(&mut self, place: usize, why: &str) {
        self.shared.traces.end(place);
        let counts = self.shared.traces.counts_of(place);
        if let Some(lease) = self.leases.end(place) {
            self.remove_if_deserted(&lease.socket);
            let (trace, sent, dropped) = (lease.number, counts.sent, counts.dropped);
            tracing::info!(trace, sent, dropped, why, "a trace ends");
        }
    }

    /// Removes the name of a socket that nobody holds any more, as after a `kill -9`. Who was only stopped
    /// for a while has it still, and asks for another trace to it.
    fn remove_if_deserted(&self, socket: &Path) {
        let told = self.wiring.tracer.map(|tracer| unix_socket::tell(tracer, socket, b"\n"));
        if let Some(Err(error)) = told
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Whether a name is that of a socket of a trace, and leads nowhere else.
fn is_trace_socket(name: &str) -> bool {
    let number = name.strip_prefix("trace.").and_then(|rest| rest.strip_suffix(".sock"));
    number.is_some_and(|number| {
        !number.is_empty() && number.len() <= 20 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Removes what traces have left in a run directory.
pub(crate) fn remove_sockets(run_dir: &Path) {
    for entry in fs::read_dir(run_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_trace_socket) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_renewed_and_given_back() {
        let mut leases = Leases::after(0);
        let socket = || PathBuf::from("s");
        for number in 1..=4 {
            let begun = leases.begin(Millis(0), socket());
            assert_eq!(begun, Some((number, usize::try_from(number).unwrap() - 1)));
        }
        assert_eq!(leases.begin(Millis(0), socket()), None, "the bound");
        assert_eq!(leases.renew(Millis(1), 2), Some(1));
        assert_eq!(leases.over(Millis(LEASE_MS - 1)), Vec::<usize>::new());
        assert_eq!(leases.over(Millis(LEASE_MS)), [0, 2, 3]);
        assert!(leases.end(2).is_some() && leases.end(2).is_none());
        assert_eq!(leases.begin(Millis(9), socket()), Some((5, 2)));
        assert_eq!((leases.renew(Millis(9), 3), leases.begun), (None, 5));
        let mut upgraded = Leases::after(leases.begun);
        assert_eq!(upgraded.begin(Millis(9), socket()), Some((6, 0)));
        assert_eq!(upgraded.renew(Millis(9), 2), None, "of before");
    }

    #[test]
    fn only_names_of_trace_sockets_are_taken() {
        for name in ["trace.1.sock", "trace.4194304.sock"] {
            assert!(is_trace_socket(name), "{name}");
        }
        for name in [
            "",
            "trace..sock",
            "trace.sock",
            "../trace.1.sock",
            "trace.1.sock/..",
            "trace.-1.sock",
            "trace.1/2.sock",
            "control.sock",
            "trace.999999999999999999999.sock",
        ] {
            assert!(!is_trace_socket(name), "{name}");
        }
    }
}
