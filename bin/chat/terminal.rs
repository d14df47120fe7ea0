//! The full screen: keys, signals and the socket in one loop, and a drawing where something changed.
//!
//! Decides nothing: `talks` says what keys mean, `state` what the session does.

use super::link::Link;
use super::news::{Ending, News};
use super::talks::{Deed, Talks};
use super::view::{Paint, draw};
use super::words::Target;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::screen::Screen;
use crate::terminal;
use dunlin_server::clock;
use dunlin_server::exit::ExitCode;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// See the module. The terminal is taken once the server has said yes, so that a no is one line on it.
pub(crate) fn run(link: &mut Link, mut talks: Talks, show: &[Target]) -> Result<ExitCode, Failure> {
    let mut early = Vec::new();
    while !early.iter().any(|news| matches!(news, News::Online { .. })) {
        link.wait(&[])?;
        early.extend(link.turn());
        if let Some(ending) = link.take_ending() {
            return end(ending);
        }
    }
    let screen = Screen::open()?;
    let keyboard = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let keyboard = keyboard.map_err(|error| Failure::failed(format!("the terminal: {error}")))?;
    for target in show {
        let deeds = talks.show(target);
        carry_out(link, &mut talks, deeds);
    }
    hear(link, &mut talks, &early);
    let ending = serve(link, &mut talks, screen, &keyboard)?;
    end(ending)
}

fn end(ending: Ending) -> Result<ExitCode, Failure> {
    match ending.line {
        Some(line) => Err(Failure::with_code(ending.code, line)),
        None => Ok(ending.code),
    }
}

/// Until the end; the terminal is given back then.
fn serve(
    link: &mut Link,
    talks: &mut Talks,
    mut screen: Screen,
    mut keyboard: &File,
) -> Result<Ending, Failure> {
    let paint = Paint { colours: terminal::colours_are_wanted() };
    let mut keys = Keys::default();
    loop {
        screen.draw(|frame| draw(frame, talks, clock::now(), paint))?;
        let ready = link.wait(&[keyboard.as_fd(), screen.signals()])?;
        if ready[1] && screen.must_end() {
            link.state.quit();
        }
        if ready[0] {
            let mut bytes = [0; 4 << 10];
            match keyboard.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The terminal is gone.
                Ok(0) | Err(_) => link.state.quit(),
                Ok(read) => keys.push(&bytes[..read]),
            }
        }
        while let Some(key) = keys.next() {
            let unsent = link.state.unsent();
            let deeds = talks.press(&key, clock::now(), clock::unix_ms(), unsent);
            if deeds.contains(&Deed::Redraw) {
                screen.forget();
            }
            carry_out(link, talks, deeds);
        }
        let news = link.turn();
        hear(link, talks, &news);
        if let Some(ending) = link.take_ending() {
            return Ok(ending);
        }
    }
}

fn hear(link: &mut Link, talks: &mut Talks, news: &[News]) {
    for news in news {
        let deeds = talks.hear(news, clock::now(), clock::unix_ms());
        carry_out(link, talks, deeds);
    }
}

fn carry_out(link: &mut Link, talks: &mut Talks, deeds: Vec<Deed>) {
    for deed in deeds {
        match deed {
            Deed::Send(target, text) => {
                let number = link.state.send(clock::now(), target.clone(), text.clone());
                talks.sending(&target, text, number, clock::unix_ms());
            }
            Deed::Typing(target) => link.state.typing(&target),
            Deed::Join(room) => link.state.join(&room),
            Deed::Leave(room) => link.state.leave(&room),
            Deed::Members(room) => link.state.members(&room),
            Deed::Who(users) => link.state.presence(users),
            Deed::Watch(users) => link.state.watch(&users),
            Deed::Redraw => {}
            Deed::Finish => link.state.finish(),
            Deed::Quit => link.state.quit(),
        }
    }
}
