//! What one user sends another: each message is answered, and delivered, once, in order, and both name
//! the same message id.
//!
//! Pure. Invariant: `owed` is the number of answers and deliveries that are to come.

use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The number of the first message under way.
    first: u64,
    under_way: VecDeque<Flight>,
    /// The number behind the last that was delivered, and that one's id.
    behind_latest: u64,
    latest_id: u64,
    owed: u64,
}

#[derive(Debug)]
struct Flight {
    due: Moment,
    answered: Half,
    delivered: Half,
}

/// One of the two things that come of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    Owed,
    /// It came, with this message id.
    Came(u64),
    /// It will not, and that is right.
    Spared,
}

/// Something came where it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Came {
    pub(super) due: Moment,
    /// Nothing more is owed for this message.
    pub(super) is_done: bool,
}

impl Exchange {
    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    /// A message is sent; gives its number.
    pub(super) fn sent(&mut self, due: Moment) -> u64 {
        self.under_way.push_back(Flight { due, answered: Half::Owed, delivered: Half::Owed });
        self.owed += 2;
        self.first + self.under_way.len() as u64 - 1
    }

    /// The answer of a message came: it was taken, under this id.
    ///
    /// # Errors
    /// It should not have, now.
    pub(super) fn answered(&mut self, number: u64, id: u64) -> Result<Came, Fault> {
        let flight = self.flight(number)?;
        if flight.answered != Half::Owed {
            return Err(Fault::Doubled);
        }
        if matches!(flight.delivered, Half::Came(delivered) if delivered != id) {
            return Err(Fault::Untrue);
        }
        flight.answered = Half::Came(id);
        Ok(self.came(number, 1))
    }

    /// The answer of a message came: it was not taken, and nobody will get it.
    ///
    /// # Errors
    /// It should not have, now.
    pub(super) fn not_taken(&mut self, number: u64) -> Result<Came, Fault> {
        let flight = self.flight(number)?;
        match (flight.answered, flight.delivered) {
            (Half::Owed, Half::Owed) => {
                (flight.answered, flight.delivered) = (Half::Spared, Half::Spared);
                Ok(self.came(number, 2))
            }
            (Half::Owed, _) => Err(Fault::Untrue),
            _ => Err(Fault::Doubled),
        }
    }

    /// A message was delivered, under this id.
    ///
    /// # Errors
    /// It should not have been, now.
    pub(super) fn delivered(&mut self, number: u64, id: u64) -> Result<Came, Fault> {
        let (behind_latest, latest_id) = (self.behind_latest, self.latest_id);
        let flight = self.flight(number)?;
        match flight.delivered {
            Half::Owed => {}
            Half::Came(_) => return Err(Fault::Doubled),
            Half::Spared => return Err(Fault::Untrue),
        }
        if number < behind_latest {
            return Err(Fault::Reordered);
        }
        // Ids of one sender's messages never go back.
        if matches!(flight.answered, Half::Came(answered) if answered != id) || id <= latest_id {
            return Err(Fault::Untrue);
        }
        flight.delivered = Half::Came(id);
        (self.behind_latest, self.latest_id) = (number + 1, id);
        Ok(self.came(number, 1))
    }

    /// Forgets what is owed. Gives the answers and the deliveries that did not come.
    pub(super) fn give_up(&mut self) -> (u64, u64) {
        let owed = |half: fn(&Flight) -> Half| {
            self.under_way.iter().filter(|flight| half(flight) == Half::Owed).count() as u64
        };
        let missing = (owed(|flight| flight.answered), owed(|flight| flight.delivered));
        self.first += self.under_way.len() as u64;
        self.under_way.clear();
        self.owed = 0;
        missing
    }

    fn flight(&mut self, number: u64) -> Result<&mut Flight, Fault> {
        if number < self.first {
            return Err(Fault::Doubled);
        }
        let place = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        self.under_way.get_mut(place).ok_or(Fault::Damaged)
    }

    /// So many of what was owed for a message came.
    fn came(&mut self, number: u64, halves: u64) -> Came {
        self.owed -= halves;
        let place = usize::try_from(number - self.first).unwrap_or(0);
        let flight = &self.under_way[place];
        let came = Came { due: flight.due, is_done: flight.is_done() };
        while self.under_way.front().is_some_and(Flight::is_done) {
            self.under_way.pop_front();
            self.first += 1;
        }
        came
    }
}

impl Flight {
    fn is_done(&self) -> bool {
        self.answered != Half::Owed && self.delivered != Half::Owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().plus_ms(ms)
    }

    fn sent(count: u64) -> Exchange {
        let mut exchange = Exchange::default();
        for number in 0..count {
            assert_eq!(exchange.sent(at(number)), number);
        }
        exchange
    }

    #[test]
    fn answers_and_deliveries_come_in_any_order_of_the_two() {
        let mut exchange = sent(2);
        assert_eq!(exchange.delivered(0, 10), Ok(Came { due: at(0), is_done: false }));
        assert_eq!(exchange.answered(1, 11), Ok(Came { due: at(1), is_done: false }));
        assert_eq!(exchange.answered(0, 10), Ok(Came { due: at(0), is_done: true }));
        assert_eq!(exchange.owed(), 1);
        assert_eq!(exchange.delivered(1, 11), Ok(Came { due: at(1), is_done: true }));
        assert_eq!((exchange.owed(), exchange.sent(at(9))), (0, 2));
        assert_eq!(exchange.not_taken(2), Ok(Came { due: at(9), is_done: true }));
        assert_eq!(exchange.owed(), 0);
    }

    #[test]
    fn each_broken_promise_has_its_name() {
        let mut exchange = sent(3);
        exchange.delivered(1, 11).unwrap();
        assert_eq!(exchange.delivered(1, 11), Err(Fault::Doubled));
        assert_eq!(exchange.delivered(0, 10), Err(Fault::Reordered));
        assert_eq!(exchange.delivered(3, 13), Err(Fault::Damaged), "nobody sent it");
        assert_eq!(exchange.answered(1, 12), Err(Fault::Untrue), "another id");
        assert_eq!(exchange.not_taken(1), Err(Fault::Untrue), "it was delivered");
        exchange.answered(2, 12).unwrap();
        assert_eq!(exchange.answered(2, 12), Err(Fault::Doubled));
        assert_eq!(exchange.not_taken(2), Err(Fault::Doubled));
        assert_eq!(exchange.delivered(2, 13), Err(Fault::Untrue), "another id");
        assert_eq!(exchange.give_up(), (2, 2));
        assert_eq!(exchange.delivered(2, 12), Err(Fault::Doubled), "it is too late");
        assert_eq!(exchange.sent(at(5)), 3);
        assert_eq!(exchange.delivered(3, 11), Err(Fault::Untrue), "ids never go back");
        assert_eq!(exchange.not_taken(3).map(|came| came.is_done), Ok(true));
        let mut exchange = sent(2);
        exchange.not_taken(1).unwrap();
        assert_eq!(exchange.delivered(1, 5), Err(Fault::Untrue), "it was refused");
    }
}
