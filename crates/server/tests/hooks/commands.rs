//! What a client can have the server do, as text messages: a verb and its words.

use crate::app::RecordingApp;
use dunlin_server::{
    ConnId, Context, Handshake, Message, RequestId, Response, SlotId, TimerId, Turn,
};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// What a client can have a task process do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    Say(String),
    Sleep(u64),
    Panic,
    Nothing,
    Die,
    Mark,
    Try(String),
    Push(u64, String),
    Farewell(u64, u16, String),
    Tell(u16, String),
}

/// What a worker with little memory may take beside what it has at its start.
const MORE_MEMORY_BYTES: u64 = 64 << 20;

/// Does what a client says; gives the answer, empty where there is none.
pub(crate) fn obey(context: &mut Context<'_, RecordingApp>, conn: ConnId, command: &str) -> String {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    tell_connections(context, verb, rest)
        .or_else(|| ask_about(context, conn, verb, rest))
        .or_else(|| tell_processes(context, verb, first, second))
        .or_else(|| arm(context, conn, verb, first, second))
        .or_else(|| note_turn(context, conn, verb, rest))
        .unwrap_or_else(|| misbehave(verb, rest))
}

fn tell_connections(
    context: &mut Context<'_, RecordingApp>,
    verb: &str,
    rest: &str,
) -> Option<String> {
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(match verb {
        "echo" => rest.to_owned(),
        "push" => format!("{:?}", context.push(connection(first), Message::Text(second))),
        // A message, and right behind it what kills the worker that reads both.
        "lose" => {
            let pushed = context.push(connection(first), Message::Text("lost"));
            let killed = context.send_pipe_message(SlotId(number(second)), &"die".to_owned());
            format!("{pushed:?} {}", killed.is_ok())
        }
        "flood" | "drop" => flood(context, verb == "drop", first, second),
        "broadcast" => {
            context.broadcast(Message::Text(rest));
            String::new()
        }
        "many" => {
            let all: Vec<ConnId> = rest.split(' ').map(connection).collect();
            format!("many {}", context.push_many(&all, Message::Text("to many")))
        }
        "disconnect" => {
            let (code, reason) = second.split_once(' ').unwrap_or((second, ""));
            context.disconnect(connection(first), number(code), reason).to_string()
        }
        "farewell" => {
            let (code, words) = second.split_once(' ').unwrap_or((second, ""));
            let words = Message::Text(words);
            context.disconnect_saying(connection(first), words, number(code), "enough").to_string()
        }
        _ => return None,
    })
}

fn ask_about(
    context: &mut Context<'_, RecordingApp>,
    conn: ConnId,
    verb: &str,
    rest: &str,
) -> Option<String> {
    Some(match verb {
        "id" => {
            let slot = context.session_info(conn).map_or(u16::MAX, |info| info.slot.0);
            format!("id {conn} {slot} {}", std::process::id())
        }
        "count" => format!("count {}", count(context, conn)),
        "established" => context.is_established(connection(rest)).to_string(),
        "info" => format!("{:?}", context.session_info(connection(rest))),
        "stats" => context.stats().to_string(),
        _ => return None,
    })
}

fn tell_processes(
    context: &mut Context<'_, RecordingApp>,
    verb: &str,
    first: &str,
    second: &str,
) -> Option<String> {
    Some(match verb {
        "pipe" => {
            let sent = context.send_pipe_message(SlotId(number(first)), &second.to_owned());
            sent.is_ok().to_string()
        }
        "task" => match context.task(&work(first, second)) {
            Ok(task) => format!("task {}", task.0),
            Err(error) => format!("task {error}"),
        },
        "accept" => context.answer_handshake(RequestId(number(first)), chosen()).to_string(),
        "respond" => {
            let response = Response::text(200, second);
            context.respond(RequestId(number(first)), response).to_string()
        }
        "reload" => {
            context.reload();
            String::new()
        }
        "shutdown" => {
            context.shutdown();
            String::new()
        }
        _ => return None,
    })
}

fn arm(
    context: &mut Context<'_, RecordingApp>,
    conn: ConnId,
    verb: &str,
    first: &str,
    second: &str,
) -> Option<String> {
    let armed = |timer: Option<TimerId>| {
        timer.map_or_else(|| "refused".into(), |timer| timer.0.to_string())
    };
    Some(match verb {
        "after" => armed(context.after(number(first), second.as_bytes()).ok()),
        "tick" => armed(context.tick(number(first), second.as_bytes()).ok()),
        "clear" => context.clear_timer(TimerId(number(first))).to_string(),
        "deadline" => {
            let due = context.now() + number(first);
            context.set_deadline(conn, Some(due));
            format!("deadline {}", due.0)
        }
        "heartbeat" => {
            context.set_heartbeat(conn, Some(number(first)));
            "heartbeat".into()
        }
        _ => return None,
    })
}

/// Has word 0 of the application's marks set when what was pushed has left.
pub(crate) fn mark(context: &mut Context<'_, RecordingApp>) {
    let area = context.area("marks").expect("the application asked for it");
    context.mark_when_sent(&area[0], 0, 1);
}

fn note_turn(
    context: &mut Context<'_, RecordingApp>,
    conn: ConnId,
    verb: &str,
    rest: &str,
) -> Option<String> {
    let area = context.area("marks").expect("the application asked for it");
    let turn = context.turn().to_bits();
    Some(match verb {
        "mark" => {
            mark(context);
            let marked = format!("marked {}", area[0].load(Ordering::SeqCst));
            let _ = context.push(conn, Message::Text(&turn.to_string()));
            marked
        }
        "mark_and_die" => {
            mark(context);
            area[1].store(turn, Ordering::SeqCst);
            die()
        }
        "marked" => area[number::<usize>(rest)].load(Ordering::SeqCst).to_string(),
        "turn" => turn.to_string(),
        "under_way" => context.is_under_way(Turn::from_bits(number(rest))).to_string(),
        "under_way_now" => context.is_under_way(context.turn()).to_string(),
        _ => return None,
    })
}

fn chosen() -> Handshake {
    Handshake::Accept { subprotocol: None, headers: vec![("X-Answered".into(), "later".into())] }
}

/// The connection's own count, in a column that the application added to the session table.
fn count(context: &Context<'_, RecordingApp>, conn: ConnId) -> u64 {
    let table = context.table();
    let column = table.counter_column("counted").expect("the application's own column");
    let word = table.counter(conn, column).expect("its connection is open");
    word.fetch_add(1, Ordering::Relaxed) + 1
}

/// `CONN NUMBER BYTES`: pushes until one is not taken; says how many were and what happened then.
fn flood(context: &mut Context<'_, RecordingApp>, droppable: bool, to: &str, rest: &str) -> String {
    let (times, bytes) = rest.split_once(' ').unwrap_or((rest, "1"));
    let payload = vec![b'x'; number(bytes)];
    let times: u32 = number(times);
    for taken in 0..times {
        let message = Message::Binary(&payload);
        let pushed = match droppable {
            true => context.push_droppable(connection(to), message),
            false => context.push(connection(to), message),
        };
        if let Err(error) = pushed {
            return format!("{taken} {error:?}");
        }
    }
    format!("{times} taken")
}

fn work(kind: &str, rest: &str) -> Work {
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match kind {
        "sleep" => Work::Sleep(number(first)),
        "panic" => Work::Panic,
        "nothing" => Work::Nothing,
        "die" => Work::Die,
        "mark" => Work::Mark,
        "try" => Work::Try(rest.into()),
        "farewell" => {
            let (code, words) = second.split_once(' ').unwrap_or((second, ""));
            Work::Farewell(connection(first).to_bits(), number(code), words.into())
        }
        "push" => Work::Push(connection(first).to_bits(), second.into()),
        "tell" => Work::Tell(number(first), second.into()),
        _ => Work::Say(rest.into()),
    }
}

/// Whoever is not there is the connection 0, which is never open.
pub(crate) fn connection(text: &str) -> ConnId {
    ConnId::parse(text).unwrap_or_else(|| ConnId::from_bits(0))
}

fn number<N: FromStr + Default>(text: &str) -> N {
    text.parse().unwrap_or_default()
}

/// Asks at the control socket, as a verb does.
fn ask_master(place: &str) -> io::Result<String> {
    let mut socket = UnixStream::connect(place)?;
    socket.write_all(b"{\"verb\":\"status\"}\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Tries what a server does not need, or does; says what came of it.
pub(crate) fn attempt(what: &str) -> String {
    let (what, place) = what.split_once(' ').unwrap_or((what, ""));
    let tried = match what {
        "control" => return ask_master(place).unwrap_or_else(|error| error.to_string()),
        "program" => std::process::Command::new("true").status().map(drop),
        "namespace" => nix::sched::unshare(CloneFlags::CLONE_NEWUTS).map_err(Into::into),
        "root" => nix::unistd::chroot("/").map_err(Into::into),
        "user" => nix::unistd::seteuid(nix::unistd::geteuid()).map_err(Into::into),
        "thread" => thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join())),
        "file" => fs::File::open("/proc/self/status").map(drop),
        "socket" => Socket::new(Domain::IPV6, Type::DGRAM, None).map(drop),
        other => return format!("no such attempt: {other}"),
    };
    tried.map_or_else(|error| format!("{:?}", error.kind()), |()| "done".to_owned())
}

fn misbehave(verb: &str, rest: &str) -> String {
    match verb {
        "sleep" => thread::sleep(Duration::from_millis(number(rest))),
        "panic" => panic!("as it was told"),
        "die" => die(),
        "try" => return attempt(rest),
        "leak" => return leak(number(rest)),
        "abort" => std::process::abort(),
        "devour" => devour(),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "exit" => std::process::exit(number(rest)),
        other => return format!("no such command: {other}"),
    }
    "slept".into()
}

/// Takes memory until there is none.
fn devour() -> ! {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(vec![u8::try_from(taken.len() % 256).unwrap_or(0) | 1; 1 << 20]);
    }
}

/// Bounds this process's memory to a little more than it has.
pub(crate) fn bound_memory() {
    let status = fs::read_to_string("/proc/self/status").expect("it lives");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    let pages: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    let bytes = (pages << 10) + MORE_MEMORY_BYTES;
    setrlimit(Resource::RLIMIT_AS, bytes, bytes).expect("a limit may be lowered");
}

/// Opens what a worker opens, a socket of the server's port and a memfd, and notes neither: as one does
/// that is killed before it can.
fn leak(port: u16) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("as the listeners");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("their port");
    let memfd = memfd_create(c"dunlin", MFdFlags::empty()).expect("a memfd");
    format!("leaked {} {}", socket.into_raw_fd(), memfd.into_raw_fd())
}

pub(crate) fn die() -> ! {
    raise(Signal::SIGKILL).expect("a process may kill itself");
    unreachable!("SIGKILL came back")
}
