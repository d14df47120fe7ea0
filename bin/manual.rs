//! `dunlin man` and `dunlin completions`: what the command line says of itself, for `man` and for shells.
//!
//! Everything is made from `cli`; nothing is written twice.

use crate::cli::{Cli, Completions, Man};
use crate::failure::Failure;
use crate::terminal;
use clap::{Command, CommandFactory};
use clap_mangen::roff::{Roff, bold, roman};
use dunlin_server::exit::ExitCode;
use std::io;

/// `dunlin completions`.
pub(crate) fn completions(flags: &Completions) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "dunlin", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Ok)
}

/// `dunlin man`.
pub(crate) fn man(flags: &Man) -> Result<ExitCode, Failure> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut command = &program;
    for verb in &flags.verb {
        command = command.find_subcommand(verb).ok_or_else(|| unknown(command, verb))?;
    }
    let failed = |error: io::Error| Failure::failed(format!("the page cannot be made: {error}"));
    terminal::print(&page(command, &program).map_err(failed)?)?;
    Ok(ExitCode::Ok)
}

fn unknown(command: &Command, verb: &str) -> Failure {
    let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let name = command.get_bin_name().unwrap_or("dunlin");
    Failure::bad_usage(match known.is_empty() {
        true => format!("{name} has no {verb:?}"),
        false => format!("{name} has no {verb:?}: it has {}", known.join(", ")),
    })
}

/// A page in the sections that readers of man pages know.
fn page(command: &Command, program: &Command) -> io::Result<String> {
    let man = clap_mangen::Man::new(command.clone())
        .source(format!("dunlin {}", env!("CARGO_PKG_VERSION")))
        .manual("Dunlin");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    rest(command, program).to_writer(&mut page)?;
    Ok(in_ascii(&String::from_utf8_lossy(&page)))
}

/// As roff writes what is not ASCII: not everything that reads a page is told how it is encoded.
fn in_ascii(page: &str) -> String {
    let mut ascii = String::with_capacity(page.len());
    for letter in page.chars() {
        match letter.is_ascii() {
            true => ascii.push(letter),
            false => ascii.push_str(&format!("\\[u{:04X}]", u32::from(letter))),
        }
    }
    ascii
}

/// What the generator has no section for.
fn rest(command: &Command, program: &Command) -> Roff {
    let mut roff = Roff::default();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in examples.lines().filter(|line| line.starts_with("  ")) {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []).control("SH", ["EXIT STATUS"]);
    for (code, words) in EXIT_STATUS {
        roff.control("TP", []).text([bold(code.to_string())]).text([roman(words)]);
    }
    if is_program(command, program) {
        roff.control("SH", ["FILES"]);
        for (file, words) in FILES {
            roff.control("TP", []).text([bold(file)]).text([roman(words)]);
        }
    } else {
        roff.control("SH", ["SEE ALSO"]).text([bold("dunlin"), roman("(1)")]);
    }
    roff
}

fn is_program(command: &Command, program: &Command) -> bool {
    command.get_name() == program.get_name()
}

/// The exit codes of every verb, as `dunlin_server::exit` has them.
const EXIT_STATUS: [(u8, &str); 4] = [
    (ExitCode::Ok as u8, "Done."),
    (ExitCode::Failed as u8, "It was tried and failed, or refused. A server that runs goes on."),
    (ExitCode::BadUsage as u8, "Wrong flags or config. Nothing was begun."),
    (ExitCode::NotRunning as u8, "No server is running in the run directory."),
];

const FILES: [(&str, &str); 4] = [
    ("./dunlin.toml, /etc/dunlin/dunlin.toml", "The config, where -c names no other."),
    ("RUN_DIR/status.pipe", "Read it for the status, one JSON object: cat does."),
    ("RUN_DIR/control.sock", "Where verbs speak to the server."),
    ("RUN_DIR/dunlin.pid", "The pid of the master."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_sections_that_readers_expect() {
        let mut program = Cli::command();
        program.build();
        let whole = page(&program, &program).unwrap();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "\"EXIT STATUS\"", "FILES"] {
            assert!(whole.contains(&format!(".SH {section}\n")), "{section}: {whole}");
        }
        let reload = page(program.find_subcommand("reload").unwrap(), &program).unwrap();
        assert!(reload.contains("\ndunlin\\-reload \\- Re\\-read"), "{reload}");
        assert!(reload.contains("SEE ALSO") && !reload.contains("FILES"), "{reload}");
    }

    #[test]
    fn letters_beyond_ascii_are_written_as_roff_does() {
        assert_eq!(in_ascii("R,… µ"), "R,\\[u2026] \\[u00B5]");
    }

    #[test]
    fn a_verb_that_is_none_is_answered_with_those_there_are() {
        let man = |verb: &[&str]| {
            let verb = verb.iter().map(|word| (*word).to_owned()).collect();
            man(&Man { verb }).unwrap_err().to_string()
        };
        assert!(man(&["dance"]).starts_with("dunlin has no \"dance\": it has serve, "));
        assert!(man(&["bench", "dance"]).starts_with("dunlin bench has no \"dance\": it has echo"));
        assert_eq!(man(&["stop", "it"]), "dunlin stop has no \"it\"");
    }
}
