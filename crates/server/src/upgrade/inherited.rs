//! What this process was handed by the program whose place it takes, read once.
//!
//! Settings are resolved before there is a server, so this is asked by [`crate::config::Config`], too.

use super::hand_off::{HandOff, VARIABLE};
use crate::settings::{Changes, Settings};
use std::sync::OnceLock;

static INHERITED: OnceLock<Result<Option<HandOff>, String>> = OnceLock::new();
static CHANGES: OnceLock<KeptChanges> = OnceLock::new();

/// Keys whose values differ from those of the program that ran before.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptChanges {
    pub(crate) applied: Vec<String>,
    pub(crate) needs_restart: Vec<String>,
}

/// The hand-off of this process, if it was started with one.
pub(crate) fn inherited() -> Result<Option<&'static HandOff>, String> {
    let read = INHERITED.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(variable) => HandOff::read(&variable).map(Some),
        Err(_) => Ok(None),
    });
    read.as_ref().map(Option::as_ref).map_err(Clone::clone)
}

/// Settings as they were read, with the running values of keys that need a restart. Without a hand-off
/// they stay as they are.
pub(crate) fn keep_running_values(settings: Settings) -> Result<Settings, String> {
    let Some(hand_off) = inherited()? else { return Ok(settings) };
    let (merged, Changes { applied, needs_restart }) = settings.over_running(&hand_off.settings)?;
    // The first time is the start; afterwards a reload asks for what it has merged itself.
    CHANGES.get_or_init(|| {
        let named = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        KeptChanges { applied: named(applied), needs_restart: named(needs_restart) }
    });
    Ok(merged)
}

/// What the start found changed.
pub(crate) fn kept_changes() -> KeptChanges {
    CHANGES.get().cloned().unwrap_or_default()
}
