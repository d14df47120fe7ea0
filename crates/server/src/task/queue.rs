//! The queue that all task processes read: look, note, take, one process at a time.
//!
//! Whoever takes a task has noted it before in its row of the scoreboard, so that its asker can be told if
//! the process dies with it. Several processes read the queue: the one whose turn it is says so in a word
//! that all share, and nobody else looks. No lock that the dead keep: the master ends the turn of a process
//! that died in it, and finds by the head of the queue whether the task was taken.

use crate::clock::Millis;
use crate::ipc::codec;
use crate::ipc::mail::TaskMail;
use crate::scoreboard::{Cell, ProcessRow, Scoreboard};
use crate::sys::packet::{self, Received};
use std::io;
use std::os::fd::RawFd;
use tracing::error;

/// What a look at the queue gave.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// A task, noted as in hand.
    Task(TaskMail),
    /// One that could not be read: left out.
    Unreadable,
    /// Another process is taking one in this instant.
    Busy,
    /// None is there.
    Nothing,
}

/// Takes the next task for the process at `place`.
pub(super) fn take(
    queue: RawFd,
    board: Scoreboard,
    place: u16,
    now: Millis,
    buffer: &mut [u8],
) -> io::Result<Taken> {
    if !board.begin_task_turn(place) {
        return Ok(Taken::Busy);
    }
    let taken = take_in_turn(queue, board.task(usize::from(place)), now, buffer);
    board.end_task_turn(place);
    taken
}

fn take_in_turn(
    queue: RawFd,
    row: ProcessRow,
    now: Millis,
    buffer: &mut [u8],
) -> io::Result<Taken> {
    let length = match packet::peek(queue, buffer)? {
        Received::Packet(length) => length,
        Received::Cut => {
            packet::take(queue)?;
            return Ok(Taken::Unreadable);
        }
        Received::Nothing | Received::End => return Ok(Taken::Nothing),
    };
    let read = bincode::decode_from_slice::<TaskMail, _>(&buffer[..length], codec::settings());
    let taken = match read {
        Ok((mail, _)) => {
            row.set(Cell::TaskBegan, now.0);
            row.set(Cell::TaskAsker, u64::from(mail.asker));
            // Last: who sees the task sees whose it is.
            row.note_task(mail.task);
            Taken::Task(mail)
        }
        Err(error) => {
            error!(%error, "a task was left out of the queue");
            Taken::Unreadable
        }
    };
    packet::take(queue)?;
    row.add(Cell::TasksTaken, 1);
    Ok(taken)
}

/// In the master, after the death of the process at `place`: ends its turn if it died in it. What it had
/// noted and not taken is in nobody's hands: another will.
pub(crate) fn recover(queue: RawFd, board: Scoreboard, place: u16) {
    if board.task_turn() != Some(place) {
        return;
    }
    let row = board.task(usize::from(place));
    // Nobody else takes while the turn is the dead one's.
    if head(queue).is_some_and(|task| task == row.task_in_hand()) {
        row.note_task(0);
    }
    board.end_task_turn(place);
}

/// The task at the head of the queue.
fn head(queue: RawFd) -> Option<u64> {
    let mut buffer = vec![0; super::TASK_BUFFER_BYTES];
    let Ok(Received::Packet(length)) = packet::peek(queue, &mut buffer) else { return None };
    let read = bincode::decode_from_slice::<TaskMail, _>(&buffer[..length], codec::settings());
    read.ok().map(|(mail, _)| mail.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor;

    const NOW: Millis = Millis(7);

    struct Bench {
        board: Scoreboard,
        ends: (RawFd, RawFd),
        buffer: Vec<u8>,
    }

    impl Bench {
        fn new(tasks: &[u64]) -> Self {
            let words = dunlin_table::heap_words(Scoreboard::words_needed(1, 2, 0));
            let (write, read) = packet::pair(64 << 10).expect("a pair");
            for task in tasks {
                let mail = TaskMail { task: *task, asker: 3, work: vec![1] };
                let packet = bincode::encode_to_vec(&mail, codec::settings()).expect("it encodes");
                packet::send_packet(write, &packet).expect("room");
            }
            let buffer = vec![0; super::super::TASK_BUFFER_BYTES];
            Self { board: Scoreboard::new(words, 1, 2, &[]), ends: (write, read), buffer }
        }

        fn take(&mut self, place: u16) -> Taken {
            take(self.ends.1, self.board, place, NOW, &mut self.buffer).expect("it can be read")
        }

        fn in_hand(&self, place: usize) -> u64 {
            self.board.task(place).task_in_hand()
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            descriptor::close(self.ends.0);
            descriptor::close(self.ends.1);
        }
    }

    #[test]
    fn a_task_is_noted_when_it_is_taken_and_the_turn_is_over() {
        let mut bench = Bench::new(&[11, 12]);
        assert!(matches!(bench.take(0), Taken::Task(mail) if mail.task == 11));
        assert!(matches!(bench.take(1), Taken::Task(mail) if mail.task == 12));
        assert_eq!((bench.in_hand(0), bench.in_hand(1)), (11, 12));
        assert_eq!(bench.board.task(1).value(Cell::TaskAsker), 3);
        assert_eq!(bench.take(0), Taken::Nothing);
        assert_eq!(bench.board.task_turn(), None);
    }

    #[test]
    fn a_death_before_the_note_or_the_take_leaves_the_task_to_another() {
        for noted in [false, true] {
            let mut bench = Bench::new(&[11]);
            assert!(bench.board.begin_task_turn(0));
            if noted {
                bench.board.task(0).note_task(11);
            }
            assert_eq!(bench.take(1), Taken::Busy, "one at a time");
            recover(bench.ends.1, bench.board, 0);
            assert_eq!(bench.in_hand(0), 0, "it is not lost");
            assert!(matches!(bench.take(1), Taken::Task(mail) if mail.task == 11));
        }
    }

    #[test]
    fn a_death_behind_the_take_leaves_the_task_noted() {
        for others in [&[11, 12][..], &[11]] {
            let bench = Bench::new(others);
            assert!(bench.board.begin_task_turn(0));
            bench.board.task(0).note_task(11);
            packet::take(bench.ends.1).expect("it is there");
            recover(bench.ends.1, bench.board, 0);
            assert_eq!(bench.in_hand(0), 11, "its asker is to be told");
            assert_eq!(bench.board.task_turn(), None);
        }
    }

    #[test]
    fn only_the_turn_of_the_dead_is_ended() {
        let bench = Bench::new(&[11]);
        assert!(bench.board.begin_task_turn(1));
        recover(bench.ends.1, bench.board, 0);
        assert_eq!(bench.board.task_turn(), Some(1));
    }
}
