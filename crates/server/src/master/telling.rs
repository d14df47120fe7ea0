//! What the master tells of itself: in the status pipe, and to all processes by the bulletin.

use super::Master;
use super::moving::BalanceFigures;
use crate::app::App;
use crate::status::{self, ReloadCounts, ServerFacts, ServerState};
use serde_json::{Value as Json, json};

/// By what a change is seen of what was told last.
#[derive(PartialEq, Debug)]
pub(super) struct Told {
    state: ServerState,
    generation: u64,
    counts: [ReloadCounts; 2],
    reports: [u64; 2],
    balance: BalanceFigures,
    stopping: Json,
}

impl<A: App> Master<A> {
    /// The status object, the application's part merged in.
    pub(super) fn status(&mut self) -> Json {
        let mailbox_bytes = self.wiring.mailbox_bytes();
        let names = &self.wiring.process_names;
        let mut object = status::status(self.tell(), names, &mailbox_bytes, &self.shared);
        let more = self.hook(|app, master| app.status(master));
        status::merge(&mut object, more.unwrap_or_default());
        object
    }

    /// Tells all processes what has changed. Costs a comparison where nothing has.
    pub(super) fn publish_changes(&mut self) {
        let now = Told {
            state: self.server_state(),
            generation: self.generation,
            counts: [self.reloads, self.upgrades.counts],
            reports: [self.last_reload.seq, self.upgrades.last.seq],
            balance: self.balance_figures.clone(),
            stopping: self.stopping_status(),
        };
        if self.told.as_ref() == Some(&now) {
            return;
        }
        let mut text = self.tell();
        if !self.shared.bulletin.publish(&text.to_string()) {
            // What may be long are lists of keys and sentences; the status pipe has them.
            for report in ["last_reload", "last_upgrade", "config"] {
                text[report] = Json::Null;
            }
            self.shared.bulletin.publish(&text.to_string());
        }
        self.told = Some(now);
    }

    fn tell(&self) -> Json {
        let facts = ServerFacts {
            state: self.server_state(),
            pid: std::process::id(),
            generation: self.generation,
            started_at_ms: self.started_at_ms,
            listen: &self.wiring.addresses,
            admin_listen: &self.wiring.admin_addresses,
            config: self.config.config_path.as_ref().map(|path| path.display().to_string()),
            reloads: self.reloads,
            last_reload: &self.last_reload,
            upgrades: self.upgrades.counts,
            last_upgrade: &self.upgrades.last,
        };
        let mut told = status::told_by_master(&facts);
        told["balance"] = json!(self.balance_figures);
        told["stopping"] = self.stopping_status();
        told
    }
}
