//! What a verb that does something says at its end: words for people, or with `--json` one object in the
//! shape of the control socket's answers: `ok`, `error`, `result`.
//!
//! Invariant: with `--json` standard output holds one object, whatever came of it; the exit code and the
//! line on standard error are the same with it and without.

use crate::failure::Failure;
use crate::terminal;
use dunlin_server::control::ControlAnswer;
use dunlin_server::exit::ExitCode;
use serde_json::Value as Json;

/// Says what came of a deed; `words` is for people.
pub(crate) fn say(
    json: bool,
    deed: &str,
    answer: Result<ControlAnswer, Failure>,
    words: impl FnOnce(&Json) -> String,
) -> Result<ExitCode, Failure> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            if json {
                print_object(&ControlAnswer::refused(failure.to_string()))?;
            }
            return Err(failure);
        }
    };
    if json {
        print_object(&answer)?;
    } else if answer.ok {
        terminal::print(&words(&answer.result))?;
    }
    match answer.outcome() {
        Ok(_) => Ok(ExitCode::Ok),
        Err(error) => Err(Failure::failed(format!("{deed} refused: {error}"))),
    }
}

fn print_object(answer: &ControlAnswer) -> Result<(), Failure> {
    terminal::print(&String::from_utf8_lossy(&answer.to_line()))
}
