//! The new program after the exec: it finds everything by number and goes on.
//!
//! Knows the order in which a server comes back into being; what was under way is the master's. Nothing
//! here may fail that the rehearsal did not try: a program that ends here is the death of the server.

use super::hand_off::HandOff;
use crate::app::App;
use crate::ledger::{DescriptorKind, Ledger};
use crate::master::{self, Master, Parts, Succession};
use crate::run_dir::OccupiedRunDir;
use crate::server::{Server, StartError};
use crate::shared::Shared;
use crate::sys::{descriptor, exec, fork, limits, signals};
use dunlin_table::Region;
use std::os::fd::RawFd;
use std::path::Path;

impl<A: App> Server<A> {
    /// Takes the place of the program that has become this one.
    pub(crate) fn succeed(
        self,
        hand_off: &HandOff,
        succession: &Succession,
    ) -> Result<(), StartError> {
        let system = |what| move |source| StartError::System { what, source };
        signals::register(&master::all_signals())
            .map_err(system("the signal handlers cannot be set"))?;
        signals::put_back(succession.came);
        // What came during the exec waits in the kernel.
        fork::unblock_signals().map_err(system("signals cannot be let in"))?;
        limits::raise_descriptor_limit()
            .map_err(system("the limit of open descriptors cannot be asked for"))?;
        let layout = self.layout(hand_off.sizes.descriptors)?;
        let facts = layout.facts(&self.process_names());
        let region = Region::from_descriptor(descriptor::own(hand_off.segment))
            .map_err(crate::shared::SharedError::from)?;
        let shared = Shared::over(&layout, region, hand_off.seed)?;
        for number in succession.descriptors() {
            exec::close_on_exec(number)
                .map_err(system("a descriptor of the program before is not there"))?;
        }
        exec::close_on_exec(hand_off.segment).map_err(system("the segment is not there"))?;
        settle(shared.ledger);
        let run_dir = OccupiedRunDir::taken_over(Path::new(&hand_off.run_dir), succession.run_dir)?;
        let (source, this) = self.take_source();
        let master = Master::new(Parts {
            app: this.app,
            config: this.config,
            source,
            processes: this.processes,
            shared,
            wiring: succession.wiring.clone(),
            run_dir,
            start: succession.start.clone(),
            facts,
            sizes: layout.sizes,
            succession: Some(Box::new(succession.clone())),
            // Whoever waited for the server to be ready was told long ago.
            announce: Box::new(|_| {}),
        });
        let master = master.map_err(system("the master cannot be made"))?;
        master.run().map_err(StartError::Children)
    }
}

/// What the ledger says is open is so, and closes with the next exec; what was the former program's own
/// is gone with it.
fn settle(ledger: Ledger) {
    for number in 0..ledger.len() {
        let Ok(number) = RawFd::try_from(number) else { return };
        let carried = match ledger.entry(number).map(|entry| entry.kind) {
            None => continue,
            Some(DescriptorKind::Master | DescriptorKind::Private) => false,
            Some(_) => exec::close_on_exec(number).is_ok(),
        };
        if !carried {
            ledger.clear(number);
        }
    }
}
