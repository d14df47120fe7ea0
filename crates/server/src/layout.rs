//! Where everything lies in the shared memory of a server, and the facts by which two programs find out
//! whether they mean the same by it.
//!
//! Pure arithmetic and names; touches no memory. A program that takes a server over by an upgrade reads
//! what another one has written: it may only where all the facts agree.
//! Invariant: whatever decides how a shared word, a mailbox's packet or a rest's file is read stands in
//! [`Layout::facts`]; what names and sizes do not show raises [`MEANING`].

use crate::app::AreaRequest;
use crate::bulletin::{Bulletin, TEXT_MAX};
use crate::ipc::mail;
use crate::ledger::DescriptorKind;
use crate::peers::Peers;
use crate::scoreboard::{self, Scoreboard};
use crate::sessions::Sessions;
use crate::shared::{POOL_BLOCK_BYTES, POOL_GROUPS, SharedError, Sizes};
use crate::timer::{self, TimerTable};
use crate::traces::Traces;
use crate::worker::REST_MARK;
use dunlin_table::{Area, Column, Description, Plan, Pool, Rows, Schema};
use serde::{Deserialize, Serialize};

/// Raised with each change of what a shared word means that no name and no size tells of: the bits of
/// a state word, the codes of a cell, who may write what.
pub(crate) const MEANING: u32 = 1;

/// The plan of a server's shared memory.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) sizes: Sizes,
    pub(crate) schema: Schema,
    pub(crate) blocks: u32,
    pub(crate) areas: Places,
    /// Of the application: what its own words mean, as [`crate::App::layout_version`] gives it.
    app_version: u32,
    /// Of the application: what ended connections are counted by.
    pub(crate) close_codes: &'static [u16],
    plan: Plan,
}

/// Where each structure lies.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) sessions: Area,
    pub(crate) pool: Area,
    pub(crate) ledger: Area,
    pub(crate) scoreboard: Area,
    pub(crate) timers: Area,
    pub(crate) peers: Area,
    pub(crate) bulletin: Area,
    pub(crate) traces: Area,
    pub(crate) named: Vec<(AreaRequest, Area)>,
}

impl Layout {
    /// Plans the shared memory.
    ///
    /// # Errors
    /// A size is out of range, or the application's columns do not make a schema.
    pub(crate) fn new(
        sizes: Sizes,
        app_columns: Vec<Column>,
        app_areas: &[AreaRequest],
        app_version: u32,
    ) -> Result<Self, SharedError> {
        let schema = Sessions::schema(app_columns)?;
        let blocks =
            u32::try_from(sizes.receive_pool_bytes.div_ceil(POOL_BLOCK_BYTES)).unwrap_or(u32::MAX);
        let mut plan = Plan::new();
        let areas = Places {
            sessions: plan.reserve(Rows::words_needed(&schema, sizes.sessions)?),
            pool: plan.reserve(Pool::words_needed(blocks, POOL_BLOCK_BYTES, POOL_GROUPS)?),
            ledger: plan.reserve(sizes.descriptors),
            scoreboard: plan.reserve(Scoreboard::words_needed(
                sizes.workers,
                sizes.tasks,
                sizes.processes,
            )),
            timers: plan.reserve(TimerTable::words_needed(sizes.timers)),
            peers: plan.reserve(Peers::words_needed(sizes.workers, sizes.descriptors)),
            bulletin: plan.reserve(Bulletin::WORDS),
            traces: plan.reserve(Traces::WORDS),
            named: app_areas
                .iter()
                .map(|request| (*request, plan.reserve(request.words)))
                .collect(),
        };
        Ok(Self { sizes, schema, blocks, areas, app_version, close_codes: &[], plan })
    }

    /// The same with the application's close codes.
    pub(crate) fn telling_apart(self, close_codes: &'static [u16]) -> Self {
        Self { close_codes, ..self }
    }

    /// Words of the whole segment.
    #[must_use]
    pub(crate) fn words(&self) -> usize {
        self.plan.words()
    }

    /// Everything by which the memory is read, `processes` being the names of the added processes.
    #[must_use]
    pub(crate) fn facts(&self, processes: &[String]) -> Facts {
        let mut facts = Facts(Vec::new());
        let mut add = |name: &str, value: String| facts.0.push((name.to_owned(), value));
        add("the meaning of shared words", MEANING.to_string());
        add("the application's layout version", self.app_version.to_string());
        let mark = String::from_utf8_lossy(REST_MARK);
        add("the formats of mail and rest", format!("{:#x}, {mark}", mail::MAILS));
        for column in self.schema.columns() {
            add(&format!("column {}", column.name), format!("{:?}", column.kind));
        }
        add("the session table's rows", self.sizes.sessions.to_string());
        if let Ok(description) = Description::of_rows(&self.schema, self.sizes.sessions) {
            for area in description.areas {
                add(&format!("the session table's {}", area.name), format!("{} B", area.bytes));
            }
        }
        let pool = format!("{} of {POOL_BLOCK_BYTES} B, {POOL_GROUPS} groups", self.blocks);
        add("the receive pool's blocks", pool);
        add("descriptors", self.sizes.descriptors.to_string());
        add("kinds of descriptors", format!("{:?}", DescriptorKind::codes()));
        let Sizes { workers, tasks, timers, .. } = self.sizes;
        add("worker slots", workers.to_string());
        add("task processes", tasks.to_string());
        add("added processes", processes.join(", "));
        add("words of a process row", scoreboard::ROW_WORDS.to_string());
        add("cells of a process row", format!("{:?}", scoreboard::CELLS));
        let own = &self.close_codes[..self.close_codes.len().min(scoreboard::APP_CODES_MAX)];
        add("close codes that are counted", format!("{own:?}"));
        add("bounds of times", format!("{:?}", scoreboard::BOUNDS_US));
        add("timers", format!("{timers} of {} words", timer::ROW_WORDS));
        add("what the master tells", format!("{TEXT_MAX} B of JSON"));
        add("traces", format!("{} words", Traces::WORDS));
        for (request, _) in &self.areas.named {
            add(&format!("area {}", request.name), format!("{} words", request.words));
        }
        // Where each lies follows from the sizes above, unless a structure has changed inside.
        add("the shared memory's size", format!("{} words", self.words()));
        facts
    }
}

/// What is to be the same in two programs that share one memory, by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// A difference between these facts, of the running program, and those of a `new` one.
    #[must_use]
    pub(crate) fn difference(&self, new: &Self) -> Option<String> {
        let of = |facts: &Self, name: &str| {
            let found = facts.0.iter().find(|(known, _)| known == name);
            found.map_or_else(|| "not there".to_owned(), |(_, value)| cut(value))
        };
        let value = |facts: &Self, name: &str| {
            facts.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let mut names = self.0.iter().chain(&new.0).map(|(name, _)| name);
        // What only one of them has says more than the sizes that follow from it.
        let differs = names
            .clone()
            .find(|name| value(self, name).is_some() != value(new, name).is_some())
            .or_else(|| names.find(|name| value(self, name) != value(new, name)));
        if let Some(name) = differs {
            let (running, new) = (of(self, name), of(new, name));
            return Some(format!("{name}: {running} in what runs, {new} in the new program"));
        }
        // The order says where things lie.
        (self != new).then(|| "columns or areas are in another order".to_owned())
    }
}

/// Short enough for a sentence.
fn cut(value: &str) -> String {
    const CHARS: usize = 60;
    match value.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_table::ColumnKind;

    const SIZES: Sizes = Sizes {
        sessions: 100,
        receive_pool_bytes: 1 << 20,
        workers: 2,
        tasks: 1,
        processes: 1,
        timers: 16,
        descriptors: 256,
    };

    fn facts(sizes: Sizes, columns: Vec<Column>, areas: &[AreaRequest], version: u32) -> Facts {
        let layout = Layout::new(sizes, columns, areas, version).expect("a layout");
        layout.facts(&["timer".to_owned()])
    }

    fn column(name: &str, kind: ColumnKind) -> Column {
        Column { name: name.into(), kind }
    }

    #[test]
    fn each_change_of_a_size_or_a_name_is_a_difference_that_says_itself() {
        let columns = || vec![column("a", ColumnKind::Counter), column("b", ColumnKind::Str(8))];
        let area = [AreaRequest { name: "x", words: 9 }];
        let running = facts(SIZES, columns(), &area, 0);
        assert_eq!(running.difference(&facts(SIZES, columns(), &area, 0)), None);
        let says = |new: Facts, word: &str| {
            let said = running.difference(&new).unwrap_or_default();
            assert!(said.starts_with(word), "{said:?} for {word:?}");
            assert!(new.difference(&running).is_some());
        };
        let sizes = |change: fn(&mut Sizes)| {
            let mut sizes = SIZES;
            change(&mut sizes);
            facts(sizes, columns(), &area, 0)
        };
        says(sizes(|sizes| sizes.sessions += 1), "the session table's rows: 100 in what runs, 101");
        says(sizes(|sizes| sizes.receive_pool_bytes *= 2), "the receive pool's blocks");
        says(sizes(|sizes| sizes.workers += 1), "worker slots");
        says(sizes(|sizes| sizes.tasks += 1), "task processes");
        says(sizes(|sizes| sizes.timers += 1), "timers");
        says(sizes(|sizes| sizes.descriptors += 1), "descriptors");
        says(facts(SIZES, columns(), &area, 1), "the application's layout version");
        says(facts(SIZES, columns(), &[], 0), "area x: 9 words in what runs, not there");
        let other = vec![column("a", ColumnKind::Counter), column("b", ColumnKind::Str(9))];
        says(facts(SIZES, other, &area, 0), "column b");
        let more = [columns(), vec![column("c", ColumnKind::Int)]].concat();
        says(facts(SIZES, more, &area, 0), "column c: not there");
        let mut turned = columns();
        turned.reverse();
        says(facts(SIZES, turned, &area, 0), "columns or areas are in another order");
        let layout = Layout::new(SIZES, columns(), &area, 0).expect("a layout");
        says(layout.facts(&["timer".to_owned(), "more".to_owned()]), "added processes");
    }
}
