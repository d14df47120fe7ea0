//! `dunlin chat`: a client of the IM protocol for people, and for scripts.
//!
//! `state` is the session with the server and decides everything about it; `link` has its socket;
//! `lines` shows it as lines, `terminal` on a full screen: `talks` is what is there and what keys mean, `view`
//! draws it. Knows the protocol by docs/protocol.md alone, and nothing of how a server
//! works inside.

mod asked;
mod connection;
pub(crate) mod flags;
mod input;
mod lines;
mod link;
mod news;
mod outgoing;
mod place;
mod policy;
mod seen;
mod state;
mod talks;
mod terminal;
mod view;
pub(crate) mod words;

use crate::failure::Failure;
use crate::screen;
use dunlin_im::ids::check_name;
use dunlin_server::exit::ExitCode;
use flags::Chat;
use link::Link;
use place::Place;
use serde_json::json;
use state::Identity;
use talks::Talks;
use words::Target;

/// `dunlin chat`.
pub(crate) fn run(flags: &Chat) -> Result<ExitCode, Failure> {
    check_names(flags)?;
    let full_screen = screen::is_there() && !flags.json;
    let place = Place::find(flags.url.as_deref(), &flags.server)?;
    let shown = place.to_string();
    let identity = identity(flags)?;
    let mut link = Link::new(place, identity, flags.token_file.clone())?;
    for room in &flags.room {
        link.state.join(room);
    }
    if full_screen {
        let rooms = flags.room.iter().rev().cloned().map(Target::Room);
        let show: Vec<Target> = rooms.chain(flags.to.clone().map(Target::User)).collect();
        let talks = Talks::new(flags.user.clone().unwrap_or_default(), shown);
        return terminal::run(&mut link, talks, &show);
    }
    let target = flags.to.clone().map(Target::User);
    let target = target.or_else(|| flags.room.first().cloned().map(Target::Room));
    lines::run(&mut link, target, flags.json)
}

fn check_names(flags: &Chat) -> Result<(), Failure> {
    let named = [("--user", &flags.user), ("--device", &flags.device), ("--to", &flags.to)];
    let named = named.into_iter().filter_map(|(flag, name)| Some((flag, name.as_ref()?)));
    for (flag, name) in named.chain(flags.room.iter().map(|room| ("--room", room))) {
        check_name(name)
            .map_err(|error| Failure::bad_usage(format!("{flag} is no name: it {error}")))?;
    }
    Ok(())
}

fn identity(flags: &Chat) -> Result<Identity, Failure> {
    let token = match &flags.token_file {
        Some(file) => Some(link::read_token(file)?),
        None => flags.token.clone(),
    };
    let device = match &flags.device {
        Some(device) => device.clone(),
        // One of its own: a login with the device of another session ends that one.
        None => format!("terminal-{}", &link::random_text()?[..8]),
    };
    let model = concat!("dunlin ", env!("CARGO_PKG_VERSION"));
    Ok(Identity {
        user: flags.user.clone(),
        token,
        renews: flags.token_file.is_some(),
        device: json!({"id": device, "kind": "terminal", "model": model}),
    })
}
