//! The examples that stand behind each help text can be typed: help that rots is a failing test.

use crate::cli::Cli;
use clap::{Command, CommandFactory, Parser};

/// Examples of a help text: the lines below `Examples:`, indented by two.
fn examples(command: &Command) -> Vec<String> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = text.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.strip_prefix("  ").unwrap_or_else(|| panic!("not indented: {line:?}")))
        .map(ToOwned::to_owned)
        .collect()
}

/// The part of a line that is ours: from our name to a comment, a pipe or what a shell has around it.
fn command_line(example: &str) -> Vec<&str> {
    let begin = example.find("dunlin ").unwrap_or_else(|| panic!("not ours: {example:?}"));
    let ours = &example[begin..];
    let end = ["  #", " # ", " |", " >", ")"].iter().filter_map(|word| ours.find(word)).min();
    ours[..end.unwrap_or(ours.len())].split_whitespace().collect()
}

fn each(command: &Command, see: &mut impl FnMut(&Command)) {
    see(command);
    command.get_subcommands().for_each(|verb| each(verb, see));
}

#[test]
fn every_example_can_be_typed_and_is_of_its_verb() {
    let mut seen = 0;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    each(&program, &mut |command| {
        let path = command.get_bin_name().unwrap_or_default().to_owned();
        let examples = examples(command);
        assert!(!examples.is_empty(), "{path} has no example");
        for example in examples {
            let words = command_line(&example);
            let is_help = words.get(1) == Some(&"help");
            match Cli::try_parse_from(&words) {
                Ok(_) => assert!(!is_help, "{example}"),
                // Help is said to be an error.
                Err(said) => assert!(is_help && !said.use_stderr(), "{example}: {said}"),
            }
            assert!(is_help || words.join(" ").starts_with(&path), "{example:?} behind {path}");
            assert!(example.chars().count() <= 96, "too long for a terminal: {example}");
            seen += 1;
        }
    });
    assert!(seen >= 30, "only {seen} examples were found");
}

#[test]
fn lines_are_cut_where_a_shell_would() {
    let cut = |line| command_line(line).join(" ");
    assert_eq!(cut("dunlin stop   # it ends"), "dunlin stop");
    assert_eq!(cut("dunlin check --json | jq -r '.x'"), "dunlin check --json");
    assert_eq!(cut("source <(dunlin completions bash)"), "dunlin completions bash");
    assert_eq!(cut("dunlin man > /a/b"), "dunlin man");
}
