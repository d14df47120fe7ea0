//! Connects and upgrades, in rounds.

use super::meter::Meter;
use super::net::{Net, Talk};
use super::part::Part;
use crate::bench::client::moment::Moment;
use crate::failure::Failure;
use std::time::Duration;

/// Notes how long each handshake took; what comes behind it, such as a greeting, is not looked at.
#[derive(Debug)]
struct Handshakes(Part);

impl Talk for Handshakes {
    fn upgraded(&mut self, net: &mut Net, link: usize) {
        self.0.done(net.began(link), net.now);
    }

    fn heard(&mut self, _net: &mut Net, _link: usize, _text: &str) {}
}

/// Opens and closes so many connections again and again. Only the opening is measured.
///
/// # Errors
/// The system gives no more sockets, or polling fails.
pub(super) fn run(
    net: &mut Net,
    connections: usize,
    under_way: usize,
    duration: Duration,
    meter: &Meter,
) -> Result<Part, Failure> {
    let mut whole = Part::new("connect", "connects");
    let end = Moment::now().plus(duration);
    while Moment::now() < end {
        let mut handshakes = Handshakes(Part::new("connect", "connects"));
        let before = meter.read();
        let all = net.open(connections, under_way, &mut handshakes)?;
        let mut round = handshakes.0;
        round.used = meter.read().since(&before);
        round.workers = meter.workers();
        whole.add(&round);
        net.close_all();
        if !all {
            break;
        }
    }
    Ok(whole)
}
