//! `dunlin token`: a login token by the keys of the config.

use crate::cli::{SettingsFlags, Token};
use crate::failure::Failure;
use crate::settings_file::Sources;
use crate::terminal;
use dunlin_im::ImConfig;
use dunlin_im::auth::{NewToken, mint};
use dunlin_im::ids::{DeviceId, RoomId, UserId};
use dunlin_server::clock;
use dunlin_server::exit::ExitCode;

pub(crate) fn run(flags: &Token) -> Result<ExitCode, Failure> {
    if flags.ttl == 0 {
        let sentence =
            "--ttl is 0, and the token would be expired before anybody has it; at least 1";
        return Err(Failure::bad_usage(sentence));
    }
    let sources = SettingsFlags {
        config: flags.config.clone(),
        set: flags.set.clone(),
        ..SettingsFlags::default()
    };
    let settings = Sources::new(&sources)?.settings()?;
    let config = ImConfig::from_settings(&settings);
    let config = config.map_err(|error| Failure::bad_usage(error.to_string()))?;
    let wrong = |flag: &'static str| {
        move |error| Failure::bad_usage(format!("{flag} is no name: it {error}"))
    };
    let rooms = flags.rooms.iter().map(|room| RoomId::new(room.as_str()));
    let token = NewToken {
        user: UserId::new(flags.user.as_str()).map_err(wrong("--user"))?,
        device: flags
            .device
            .as_deref()
            .map(DeviceId::new)
            .transpose()
            .map_err(wrong("--device"))?,
        rooms: rooms.collect::<Result<_, _>>().map_err(wrong("--rooms"))?,
        ttl_s: flags.ttl,
    };
    let minted = mint(&config.auth, flags.kid.as_deref(), &token, clock::unix_ms());
    let minted = minted.map_err(|error| Failure::bad_usage(error.to_string()))?;
    terminal::print(&format!("{minted}\n"))?;
    Ok(ExitCode::Ok)
}
