//! The pages as a book: each is in the summary, and links between them lead to a place that is there.

use super::pages;
use crate::architecture::{collect, read, root, shown};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// What a page links to, outside code: the target as written.
fn links(text: &str) -> Vec<String> {
    let prose: String = outside_code(text).collect::<Vec<_>>().join("\n");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The lines that are in no fenced block.
fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The names that GitHub and mdBook give the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = outside_code(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim();
            // A link in a heading counts by its words.
            let title: String =
                title.split("](").enumerate().fold(String::new(), |whole, (at, part)| {
                    let part =
                        if at == 0 { part } else { part.split_once(')').unwrap_or(("", part)).1 };
                    whole + part
                });
            let name: String = title
                .chars()
                .filter_map(|letter| match letter {
                    ' ' => Some('-'),
                    '-' | '_' => Some(letter),
                    letter if letter.is_alphanumeric() => Some(letter),
                    _ => None,
                })
                .collect();
            let name = name.to_lowercase();
            let again = seen.entry(name.clone()).or_default();
            *again += 1;
            if *again == 1 { name } else { format!("{name}-{}", *again - 1) }
        })
        .collect()
}

#[test]
fn headings_are_named_as_readers_find_them() {
    let page = "# A & B, `c_d` — e-f\n```\n# no\n```\n## Same\n## Same\n## See [x](y.md)!\n";
    let expected = ["a--b-c_d--e-f", "same", "same-1", "see-x"];
    assert_eq!(anchors(page), expected.map(str::to_owned).into());
    assert_eq!(links("[a](b.md#c) `x`\n```\n[no](no)\n```\n[d](#e)"), ["b.md#c", "#e"]);
}

/// The same file, without `..` in its path.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => assert!(whole.pop(), "{} leaves the tree", path.display()),
            Component::CurDir => {}
            part => whole.push(part),
        }
        whole
    })
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages: BTreeMap<String, String> =
        pages().into_iter().filter(|(path, _)| path.ends_with(".md")).collect();
    for (path, text) in &pages {
        let folder = Path::new(path).parent().expect("a folder");
        for link in links(text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((&*link, None), |(a, b)| (a, Some(b)));
            // So that mdBook does not take it for a page of the book.
            let outside = file.ends_with("%2Emd");
            let file = &*file.replace("%2E", ".");
            let target =
                if file.is_empty() { PathBuf::from(path) } else { plain(&folder.join(file)) };
            if path.starts_with("docs/") && file.ends_with(".md") {
                let right = outside != target.starts_with("docs");
                assert!(right, "{path}: {link}: write .md within docs/, %2Emd for others");
            }
            assert!(root().join(&target).exists(), "{path} links to {link}, which is not there");
            if let Some(anchor) = anchor {
                let page = pages.get(&*target.to_string_lossy());
                let page = page.unwrap_or_else(|| panic!("{path}: {link} is no page"));
                assert!(anchors(page).contains(anchor), "{path} links to {link}: no such heading");
            }
        }
    }
}

/// Chapters of the summary, and every page there is.
#[test]
fn every_page_is_in_the_summary_once() {
    let mut files = BTreeSet::new();
    collect(&root().join("docs"), "md", &mut files);
    let there: BTreeSet<String> = files.iter().map(|path| shown(path)).collect();
    let chapters = links(&read(&root().join("docs/SUMMARY.md")));
    let mut listed = BTreeSet::from(["docs/SUMMARY.md".to_owned()]);
    for chapter in chapters {
        assert!(listed.insert(format!("docs/{chapter}")), "docs/SUMMARY.md has {chapter} twice");
    }
    let missing: Vec<&String> = there.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "add these to docs/SUMMARY.md, or take them out: {missing:?}");
}
