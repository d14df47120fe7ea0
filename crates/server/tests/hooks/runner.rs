//! Runs named tests and says how it went in the shape of cargo's own harness.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// A test: its name and what it does; it fails by a panic.
pub(crate) type Test = (&'static str, fn());

/// Tests at once where nobody says otherwise: most of them wait most of the time.
const THREADS: usize = 3;
/// The exit code of cargo's own harness where a test has failed.
const FAILED: u8 = 101;

/// Makes a list of tests of functions: each is known by its own name.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::runner::Test] = &[$((stringify!($test), $test)),*];
    };
}
pub(crate) use tests;

struct Arguments {
    filters: Vec<String>,
    exact: bool,
    list: bool,
    threads: usize,
}

/// Runs the tests that the command line asks for.
pub(crate) fn run(tests: &[Test]) -> ExitCode {
    let arguments = arguments();
    let wanted: Vec<Test> = tests.iter().copied().filter(|test| arguments.wants(test.0)).collect();
    if arguments.list {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    let began = Instant::now();
    let failed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while let Some((name, test)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().expect("no thread panics with it").push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics with it");
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in \
         {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        wanted.len() - failed.len(),
        failed.len(),
        tests.len() - wanted.len(),
        began.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn arguments() -> Arguments {
    let mut arguments =
        Arguments { filters: Vec::new(), exact: false, list: false, threads: THREADS };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let threads = match argument.split_once('=') {
            Some(("--test-threads", number)) => Some(number.to_owned()),
            None if argument == "--test-threads" => given.next(),
            _ => None,
        };
        if let Some(number) = threads {
            arguments.threads = number.parse().ok().filter(|n| *n > 0).unwrap_or(THREADS);
        } else if argument == "--list" {
            arguments.list = true;
        } else if argument == "--exact" {
            arguments.exact = true;
        } else if !argument.starts_with('-') {
            arguments.filters.push(argument);
        }
        // Other flags are those of cargo's own harness; they change nothing here.
    }
    arguments
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}
