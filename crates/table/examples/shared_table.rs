//! One table used by several forked processes, from the first line to the last:
//! `cargo run -p dunlin-table --example shared_table`.

use dunlin_table::{Compared, Description, OwnedKey, Schema, Table};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1. What a row holds. A `counter` lies outside the row: one word that anybody may add to without
    //    waiting, and that a write of the row does not touch.
    let schema = Schema::builder()
        .string("name", 32)
        .int("score")
        .float("ratio")
        .counter("visits")
        // A row may have a deadline; see 6.
        .expires()
        .build()?;
    let (name, score) = (schema.column("name"), schema.column("score"));
    let (name, score) = (name.ok_or("no name")?, score.ok_or("no score")?);
    let visits = schema.counter_column("visits").ok_or("no visits")?;

    // 2. The table, before the first fork: every child inherits the same memory. Its size is known
    //    beforehand and reserved now; exactly so many rows will fit.
    println!("{}", Description::of_table(&schema, 1000)?);
    let mut table = Table::create(schema, 1000)?;
    let ann = table.set("ann", &[(name, "Ann".into()), (score, 1.into())])?;

    // 3. Three children change the same row at the same time, and each makes a row of its own.
    let children = (1..=3).map(|number| in_child(|| play(&mut table, number, ann, score, visits)));
    for child in children.collect::<Vec<Pid>>() {
        waitpid(child, None)?;
    }
    // 4. A child dies as one should not. Its writer number is what finds what it held, if anything:
    //    nobody ever waits for the dead.
    let dead = in_child(|| {
        table.set_writer(4);
        let _ = table.set("half", &[(name, "whole or not at all".into())]);
        let _ = raise(Signal::SIGKILL);
    });
    waitpid(dead, None)?;
    println!("recovered: {:?}", table.recover(|writer| writer == 4));

    // 5. What they left. 1 + 3 * 1000: no update was lost.
    for entry in table.iter() {
        let key = match entry.key {
            OwnedKey::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            OwnedKey::Number(number) => number.to_string(),
        };
        println!("{key:>5}: {:?}, score {}", entry.row.str(name), entry.row.int(score));
    }
    let counted = table.counter("ann", visits).and_then(|counter| counter.get());
    println!("visits of ann: {counted:?}");
    // Only if nobody changed it; what is deleted is what was compared, and a write that comes later
    // makes a new row.
    let deleted = table.compare_del("ann", &[(score, 3001.into())])?;
    assert_eq!(deleted, Compared::Done(ann));
    println!("the handle is stale now: {}", !table.rows().is_live(ann));

    // 6. The clock is the caller's. A sweep looks at so many rows a call and returns what it freed.
    table.set_until("bob", &[(name, "Bob".into())], 500)?;
    table.set_until("eve", &[(name, "Eve".into())], 500)?;
    table.touch("eve", 900);
    for entry in table.sweep(600, 0, table.capacity()).swept {
        println!("its time has come: {:?}", entry.row.str(name));
    }
    // 7. What is left, as lines of JSON.
    table.export(std::io::stdout())?;
    Ok(())
}

fn play(
    table: &mut Table,
    number: u16,
    ann: dunlin_table::RowId,
    score: dunlin_table::ColumnId,
    visits: dunlin_table::CounterId,
) {
    // Each process that writes has a number of its own.
    table.set_writer(number);
    let visits = table.rows().counter_of(ann, visits);
    for _ in 0..1000 {
        // By key, whole row, all or nothing ...
        let _ = table.incr("ann", score, 1);
        // ... and by handle, one word, a few nanoseconds.
        let _ = visits.map(|visits| visits.incr(1));
    }
    // Numbers are keys too, without formatting.
    let _ = table.set(u64::from(number), &[(score, i64::from(number).into())]);
}

/// Forks; the child does `work` and is gone.
#[expect(clippy::disallowed_methods, reason = "this example is about forked processes")]
#[expect(clippy::exit, reason = "the child must not go on with its parent's work")]
#[expect(unsafe_code, reason = "fork; the process has one thread")]
fn in_child(work: impl FnOnce()) -> Pid {
    // SAFETY: there is no other thread whose locks the child could inherit.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => {
            work();
            std::process::exit(0)
        }
        Err(error) => panic!("no process can be forked: {error}"),
    }
}
