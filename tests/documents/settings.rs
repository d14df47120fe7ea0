//! The tables of `docs/settings.md` are `config/dunlin.toml` again, as a page.

use crate::architecture::{read, root};
use dunlin_im::IM_KEYS;
use dunlin_server::config::SERVER_KEYS;
use std::fmt::Write;

const BEGIN: &str = "<!-- what follows is made of config/dunlin.toml by a test; change that -->\n";
/// Set to write the page in place of comparing it.
const WRITE: &str = "WRITE_DOCS";

/// A table for each section: key, default and whether a reload takes a change; the comment.
fn tables(config: &str) -> String {
    let (mut page, mut section, mut comment) = (String::new(), "", String::new());
    for line in config.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            let head = "| key, default, change | means |\n| --- | --- |";
            writeln!(page, "\n## {section}\n\n{head}").expect("a string takes all");
        } else if let Some(words) = line.strip_prefix('#') {
            comment.push_str(words);
        } else if let Some((name, value)) = line.split_once(" = ") {
            let (means, change) = said(&comment);
            let key = format!("`{section}.{name}`");
            let value = value.replace('|', "\\|");
            writeln!(page, "| {key}<br>`{value}`<br>{change} | {means} |").expect("as before");
            comment.clear();
        } else {
            comment.clear();
        }
    }
    page
}

/// A comment without its last word, which says what a change needs.
fn said(comment: &str) -> (String, &'static str) {
    let comment = comment.trim();
    let (means, change) = if let Some(means) = comment.strip_suffix("Reload.") {
        (means, "reload")
    } else {
        let means = comment.strip_suffix("Restart.");
        (means.expect("the test of the config file has asked for one of the two"), "restart")
    };
    (means.trim().replace('|', "\\|").replace('<', "&lt;"), change)
}

#[test]
fn comments_become_cells() {
    let config =
        "# Top.\n\n[a]\n# One\n# two <x>. Reload.\nb = \"c|d\"\n# Three. Restart.\ne = 1\n";
    let page = tables(config);
    assert!(page.contains("\n## a\n"), "{page}");
    assert!(page.contains("| `a.b`<br>`\"c\\|d\"`<br>reload | One two &lt;x>. |\n"), "{page}");
    assert!(page.ends_with("| `a.e`<br>`1`<br>restart | Three. |\n"), "{page}");
}

#[test]
fn settings_has_every_key_as_the_config_file_has_it() {
    let path = root().join("docs/settings.md");
    let page = read(&path);
    let (head, found) = page.split_once(BEGIN).expect("the place of the tables");
    let wanted = tables(&read(&root().join("config/dunlin.toml")));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}")).expect("the page can be written");
        return;
    }
    let advice = "run: WRITE_DOCS=1 cargo test --test integration documents::settings";
    assert!(found == wanted, "docs/settings.md is behind config/dunlin.toml; {advice}");
}

/// The comments are by hand: what they say of reloads is compared with what a reload does.
#[test]
fn what_a_comment_says_of_reloads_is_so() {
    let page = read(&root().join("docs/settings.md"));
    for spec in SERVER_KEYS.iter().chain(IM_KEYS) {
        let start = format!("| `{}`<br>", spec.key);
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("docs/settings.md has no row for {}", spec.key));
        let change = if spec.reloadable { "<br>reload | " } else { "<br>restart | " };
        assert!(row.contains(change), "{row}: reloadable is {}", spec.reloadable);
    }
}
