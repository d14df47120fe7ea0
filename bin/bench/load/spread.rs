//! Messages of one sender that each of many members must get once, in order.
//!
//! Pure. Invariant: `owed` is the number of deliveries that are to come of those that were sent.

use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug)]
pub(super) struct Spread {
    /// The number that is next for each member.
    next: Vec<u64>,
    /// The number of the first message under way.
    first: u64,
    under_way: VecDeque<Flight>,
    owed: u64,
}

#[derive(Debug)]
struct Flight {
    due: Moment,
    /// Members that have not got it.
    left: usize,
}

/// A message came where it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Came {
    pub(super) due: Moment,
    /// It was the last delivery of the message.
    pub(super) is_last: bool,
}

impl Spread {
    pub(super) fn new(members: usize) -> Self {
        Self { next: vec![0; members], first: 0, under_way: VecDeque::new(), owed: 0 }
    }

    pub(super) fn members(&self) -> usize {
        self.next.len()
    }

    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    /// A message is sent; gives its number.
    pub(super) fn sent(&mut self, due: Moment) -> u64 {
        let left = self.members();
        self.under_way.push_back(Flight { due, left });
        self.owed += left as u64;
        self.first + self.under_way.len() as u64 - 1
    }

    /// The message of this number came to a member.
    ///
    /// # Errors
    /// It should not have, now.
    pub(super) fn came(&mut self, member: usize, number: u64) -> Result<Came, Fault> {
        let next = self.next.get_mut(member).ok_or(Fault::Damaged)?;
        if number < *next {
            return Err(Fault::Doubled);
        }
        let place = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        let flight = self.under_way.get_mut(place).ok_or(Fault::Damaged)?;
        if number > *next {
            return Err(Fault::Reordered);
        }
        *next += 1;
        flight.left -= 1;
        self.owed -= 1;
        let came = Came { due: flight.due, is_last: flight.left == 0 };
        // Members get them in order, so none is done before the one in front of it.
        while self.under_way.front().is_some_and(|flight| flight.left == 0) {
            self.under_way.pop_front();
            self.first += 1;
        }
        Ok(came)
    }

    /// Forgets what is owed: every member is as if it had got it. Gives how much it was.
    pub(super) fn give_up(&mut self) -> u64 {
        self.first += self.under_way.len() as u64;
        self.under_way.clear();
        self.next.fill(self.first);
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_gets_each_message_once_and_in_order() {
        let at = |ms| Moment::default().plus_ms(ms);
        let mut spread = Spread::new(2);
        assert_eq!((spread.sent(at(1)), spread.sent(at(2))), (0, 1));
        assert_eq!(spread.owed(), 4);
        assert_eq!(spread.came(0, 0), Ok(Came { due: at(1), is_last: false }));
        assert_eq!(spread.came(0, 0), Err(Fault::Doubled));
        assert_eq!(spread.came(1, 1), Err(Fault::Reordered));
        assert_eq!(spread.came(0, 2), Err(Fault::Damaged), "nobody sent it");
        assert_eq!(spread.came(2, 0), Err(Fault::Damaged), "no such member");
        assert_eq!(spread.came(0, 1), Ok(Came { due: at(2), is_last: false }));
        assert_eq!(spread.came(1, 0), Ok(Came { due: at(1), is_last: true }));
        assert_eq!(spread.came(1, 0), Err(Fault::Doubled), "though it is over");
        assert_eq!(spread.owed(), 1);
        assert_eq!(spread.give_up(), 1);
        assert_eq!(spread.sent(at(3)), 2);
        assert_eq!(spread.came(1, 2), Ok(Came { due: at(3), is_last: false }));
    }
}
