//! The terminal, the status pipe and the control socket of `top`.
//!
//! Decides nothing: `model` does. A thread reads the status, since a read may take as long as the server
//! does; each deed has a thread of its own. Invariant: keys are heard at once, whatever the server does.

use super::model::{Deed, Model, Order};
use super::view::{Colours, render};
use crate::cli::Top;
use crate::control::OUTCOME_TIMEOUT;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::local_time::clock_time;
use crate::look::Look;
use crate::screen::Screen;
use crate::settings_file::run_dir;
use crate::status::READ_TIMEOUT;
use crate::terminal;
use dunlin_server::clock;
use dunlin_server::control::{self, ControlAnswer, ControlRequest};
use dunlin_server::exit::ExitCode;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// How soon what threads say is drawn.
const HEARD_EVERY_MS: u16 = 50;

/// What a thread says.
enum News {
    Seen(Result<Look, String>),
    Done(Deed, Result<(), String>),
}

pub(super) fn run(flags: &Top) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    let mut screen = Screen::open()?;
    let (tell, news) = mpsc::channel();
    look_again_and_again(&run_dir, flags.every, tell.clone());
    let mut model = Model::new(run_dir.display().to_string());
    serve(&mut screen, &mut model, &run_dir, &tell, &news)?;
    Ok(ExitCode::Ok)
}

/// Until somebody leaves it.
fn serve(
    screen: &mut Screen,
    model: &mut Model,
    run_dir: &Path,
    tell: &Sender<News>,
    news: &Receiver<News>,
) -> Result<(), Failure> {
    let colours = Colours(terminal::colours_are_wanted());
    let mut keys = Keys::default();
    let mut changed = true;
    loop {
        if changed {
            screen.draw(|frame| render(frame, model, colours))?;
        }
        let (typed, signalled) = wait(screen)?;
        // A terminal of another size is a signal, too.
        changed = typed || signalled;
        if signalled && screen.must_end() {
            return Ok(());
        }
        if typed && !read_keys(&mut keys) {
            return Ok(());
        }
        while let Some(key) = keys.next() {
            match model.press(&key) {
                Some(Order::Quit) => return Ok(()),
                Some(Order::Redraw) => screen.forget(),
                Some(Order::Do(deed)) => carry_out(deed, run_dir.to_owned(), tell.clone()),
                None => {}
            }
        }
        for said in news.try_iter() {
            changed = true;
            let at = clock_time(clock::unix_ms());
            match said {
                News::Seen(seen) => model.seen(&at, seen),
                News::Done(deed, outcome) => model.done(&at, deed, outcome),
            }
        }
    }
}

/// Whether keys are there, and signals.
fn wait(screen: &Screen) -> Result<(bool, bool), Failure> {
    let input = io::stdin();
    let watch = |file| PollFd::new(file, PollFlags::POLLIN);
    let mut watched = [watch(input.as_fd()), watch(screen.signals())];
    match poll(&mut watched, PollTimeout::from(HEARD_EVERY_MS)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(Failure::failed(format!("the terminal: {errno}"))),
    }
    let ready = |file: &PollFd<'_>| file.any().unwrap_or(false);
    Ok((ready(&watched[0]), ready(&watched[1])))
}

/// Takes what was typed; false if the terminal is gone.
fn read_keys(keys: &mut Keys) -> bool {
    let mut bytes = [0; 4 << 10];
    // Past the buffer of `stdin()`, in which keys would wait unseen.
    let terminal = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let Ok(mut terminal) = terminal else { return false };
    match terminal.read(&mut bytes) {
        Ok(0) => false,
        Ok(read) => {
            keys.push(&bytes[..read]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}

/// The thread ends when nobody hears it.
fn look_again_and_again(run_dir: &Path, every: Duration, tell: Sender<News>) {
    let run_dir = run_dir.to_owned();
    thread::spawn(move || {
        loop {
            let read = control::read_status(&run_dir, READ_TIMEOUT);
            let look = read.map_err(|error| error.to_string()).and_then(|text| Look::parse(&text));
            if tell.send(News::Seen(look)).is_err() {
                return;
            }
            thread::sleep(every);
        }
    });
}

fn carry_out(deed: Deed, run_dir: PathBuf, tell: Sender<News>) {
    let request = match deed {
        Deed::Reload => ControlRequest::RELOAD,
        Deed::Balance => ControlRequest::Balance,
        Deed::Replace(slot) => ControlRequest::Reload { tasks: false, worker: Some(slot) },
        Deed::Drain(worker) => ControlRequest::Drain { worker },
    };
    thread::spawn(move || {
        let answer = control::ask(&run_dir, &request, OUTCOME_TIMEOUT);
        let outcome = answer.map_err(|error| error.to_string()).and_then(ControlAnswer::outcome);
        // Nobody hears it where top has been left.
        let _ = tell.send(News::Done(deed, outcome.map(drop)));
    });
}
