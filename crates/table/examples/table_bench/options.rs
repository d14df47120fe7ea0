//! What the command line asks for.

use crate::jobs::Op;

pub(crate) const HELP: &str = "\
table_bench [--json] [--rows 65536,1000000] [--processes 1,2] [--ops set,get,...]
            [--seconds 0.12] [--rounds 3] [--no-yardstick]

ops: set get get_one incr counter exists insert_delete iterate
--seconds  of one measurement; every cell is measured once in each round, and the best is printed
--no-yardstick  leaves out Mutex<HashMap> and the bare fetch_add and compare-and-swap";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) rows: Vec<u32>,
    pub(crate) processes: Vec<usize>,
    pub(crate) ops: Vec<Op>,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) yardstick: bool,
}

/// An argument that says nothing.
#[derive(Debug)]
pub(crate) struct BadArgument(String);

impl Options {
    /// `None`: help is asked for.
    pub(crate) fn from_arguments(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, BadArgument> {
        let mut options = Self {
            json: false,
            rows: vec![65_536, 1_000_000],
            processes: vec![1, 2],
            ops: Op::ALL.to_vec(),
            seconds: 0.12,
            rounds: 3,
            yardstick: true,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| BadArgument(name.clone()));
            match name.as_str() {
                "--json" => options.json = true,
                "--no-yardstick" => options.yardstick = false,
                "--rows" => options.rows = list(&value()?, |text| text.parse().ok())?,
                "--processes" => options.processes = list(&value()?, |text| text.parse().ok())?,
                "--ops" => options.ops = list(&value()?, Op::named)?,
                "--seconds" => options.seconds = one(&value()?)?,
                "--rounds" => options.rounds = one(&value()?)?,
                "--help" | "-h" => return Ok(None),
                _ => return Err(BadArgument(name)),
            }
        }
        options.check().map(Some)
    }

    fn check(self) -> Result<Self, BadArgument> {
        let bad = |what: &str| Err(BadArgument(what.to_owned()));
        if self.processes.iter().any(|count| !(1..=2).contains(count)) {
            return bad("--processes: 1 and 2 can be measured");
        }
        if self.rows.iter().any(|rows| !(1024..=4_000_000).contains(rows)) {
            return bad("--rows: 1024 to 4000000");
        }
        if !(0.001..=10.0).contains(&self.seconds) || !(1..=100).contains(&self.rounds) {
            return bad("--seconds: 0.001 to 10; --rounds: 1 to 100");
        }
        Ok(self)
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, BadArgument> {
    text.split(',').map(|part| parse(part).ok_or_else(|| BadArgument(part.to_owned()))).collect()
}

fn one<T: std::str::FromStr>(text: &str) -> Result<T, BadArgument> {
    text.parse().map_err(|_| BadArgument(text.to_owned()))
}

impl std::fmt::Display for BadArgument {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} is not understood; --help says what is", self.0)
    }
}

impl std::error::Error for BadArgument {}
