//! Programs and commands in pages are what was run: a block that is quoted stands in its file.

use super::pages;
use crate::architecture::{read, root};

/// A fenced block of a page.
struct Block {
    /// The file it is from, by the comment before it: `<!-- from PATH -->`.
    file: Option<String>,
    language: String,
    lines: Vec<String>,
    /// Of its first fence, from 1.
    line: usize,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut file, mut open): (Option<String>, Option<Block>) = (None, None);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (Some(language), None) => {
                let (language, lines) = (language.to_owned(), Vec::new());
                open = Some(Block { file: file.take(), language, lines, line: number + 1 });
            }
            (None, None) if !line.is_empty() => {
                let comment = line.strip_prefix("<!-- from ");
                file = comment.and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    found
}

/// Where these lines stand in the file one after the other, indented as a whole by anything; `...` in a
/// line of its own, as a comment, leaves lines out.
fn stands_in(file: &[&str], block: &[String]) -> bool {
    let parts = block.split(|line| ["// ...", "# ..."].contains(&line.trim()));
    let mut from = 0;
    for part in parts.filter(|part| !part.is_empty()) {
        let Some(at) = (from..file.len()).find(|at| begins_with(&file[*at..], part)) else {
            return false;
        };
        from = at + part.len();
    }
    true
}

fn begins_with(file: &[&str], part: &[String]) -> bool {
    let first = &part[0];
    let Some(indent) = file[0].strip_suffix(&**first) else { return false };
    indent.trim().is_empty()
        && file.len() >= part.len()
        && part.iter().zip(file).all(|(want, line)| {
            want.is_empty() && line.is_empty() || line.strip_prefix(indent) == Some(&**want)
        })
}

#[test]
fn quotes_are_compared_line_by_line() {
    let file = ["fn a() {", "    if b {", "        c();", "", "    }", "    d();", "}"];
    let block = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(stands_in(&file, &block("fn a() {\n// ...\n}")));
    assert!(stands_in(&file, &block("if b {\n    c();\n\n}\nd();")));
    assert!(!stands_in(&file, &block("if b {\n  c();\n\n}")));
    assert!(!stands_in(&file, &block("d();\n// ...\nif b {")));
    let page = "<!-- from x.rs -->\n```rust\na\n```\n\nwords\n```sh\nb\n```\n";
    let found = blocks(page);
    assert_eq!((found.len(), &found[0].file, &found[1].file), (2, &Some("x.rs".into()), &None));
}

#[test]
fn a_block_that_names_a_file_is_a_part_of_it() {
    let mut quoted = 0;
    for (path, text) in pages().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        for block in blocks(&text) {
            let Some(file) = &block.file else { continue };
            let source = read(&root().join(file));
            let lines: Vec<&str> = source.lines().collect();
            let line = block.line;
            assert!(stands_in(&lines, &block.lines), "{path}:{line}: this is not in {file}");
            quoted += 1;
        }
    }
    assert!(quoted > 8, "only {quoted} blocks are quoted");
}

/// Pages that a reader follows step by step.
const TUTORIALS: [&str; 5] =
    ["start.md", "browser-chat.md", "own-application.md", "many-processes.md", "from-swoole.md"];

/// A reader types it off: it was compiled.
#[test]
fn programs_in_tutorials_are_quoted_from_files() {
    for name in TUTORIALS {
        for block in blocks(&read(&root().join("docs").join(name))) {
            let is_program = ["rust", "php", "js", "toml"].contains(&&*block.language);
            assert!(!is_program || block.file.is_some(), "docs/{name}:{}", block.line);
        }
    }
}

/// What is typed and what is printed is the same in every language.
#[test]
fn translations_have_the_same_blocks() {
    for name in TUTORIALS {
        let of = |folder: &str| {
            let blocks = blocks(&read(&root().join(folder).join(name))).into_iter();
            blocks.map(|block| (block.file, block.language, block.lines)).collect::<Vec<_>>()
        };
        let (ours, translated) = (of("docs"), of("docs/zh"));
        assert!(ours.len() > 3 && ours.len() == translated.len(), "docs/zh/{name}");
        for (block, other) in ours.iter().zip(&translated) {
            assert_eq!(block, other, "docs/zh/{name} has another block");
        }
    }
}
