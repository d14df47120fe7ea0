//! What is measured: one job a cell of the result.

use crate::options::Options;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// All seven columns of a row that is there, by key.
    Set,
    /// The whole row copied out, by key.
    Get,
    /// One int column, by key.
    GetOne,
    /// 1 added to an int column, by key.
    Incr,
    /// 1 added to a counter column, by handle.
    Counter,
    Exists,
    /// A row of seven columns made and deleted again; the pair is one operation.
    InsertDelete,
    /// One live row, key and columns, of a walk through all.
    Iterate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pattern {
    /// Each process has rows of its own.
    Disjoint,
    /// All processes have the same one.
    Hot,
}

/// In which order a process goes through its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// As they were inserted: user:0, user:1, ...
    Sequential,
    Random,
    /// There is one row, or the table gives the order.
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Dunlin,
    /// `Mutex<HashMap<String, _>>` on the heap of one process.
    MutexHashMap,
    /// A bare word that all processes add to.
    FetchAdd,
    /// A bare word that all processes change by load and compare-and-swap.
    CompareSwap,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) op: Op,
    pub(crate) processes: usize,
    pub(crate) pattern: Pattern,
    pub(crate) order: Order,
    pub(crate) what: What,
}

/// All jobs on one table. What one row, or no row at all, is needed for is done with the first table.
pub(crate) fn all(options: &Options, first_table: bool) -> Vec<Job> {
    let mut jobs = Vec::new();
    for op in &options.ops {
        for processes in &options.processes {
            let mut add = |pattern, order, what| {
                jobs.push(Job { op: *op, processes: *processes, pattern, order, what });
            };
            let yardstick = options.yardstick && *processes == 1;
            let orders: &[Order] = match op {
                Op::Iterate => &[Order::None],
                _ => &[Order::Sequential, Order::Random],
            };
            for order in orders {
                add(Pattern::Disjoint, *order, What::Dunlin);
                if yardstick && *op != Op::Counter {
                    add(Pattern::Disjoint, *order, What::MutexHashMap);
                }
            }
            if !first_table || *op == Op::Iterate {
                continue;
            }
            add(Pattern::Hot, Order::None, What::Dunlin);
            if *op == Op::Counter && options.yardstick {
                add(Pattern::Hot, Order::None, What::FetchAdd);
                add(Pattern::Hot, Order::None, What::CompareSwap);
            } else if yardstick {
                add(Pattern::Hot, Order::None, What::MutexHashMap);
            }
        }
    }
    jobs
}

impl Op {
    pub(crate) const ALL: [Self; 8] = [
        Self::Set,
        Self::Get,
        Self::GetOne,
        Self::Incr,
        Self::Counter,
        Self::Exists,
        Self::InsertDelete,
        Self::Iterate,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::GetOne => "get_one",
            Self::Incr => "incr",
            Self::Counter => "counter",
            Self::Exists => "exists",
            Self::InsertDelete => "insert_delete",
            Self::Iterate => "iterate",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

impl Pattern {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disjoint => "disjoint",
            Self::Hot => "hot",
        }
    }
}

impl Order {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::None => "none",
        }
    }
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dunlin => "dunlin",
            Self::MutexHashMap => "mutex_hashmap",
            Self::FetchAdd => "fetch_add",
            Self::CompareSwap => "compare_swap",
        }
    }
}
