//! The nearest known key to one that is not known. Pure.

/// From this likeness on (0 to 1), of the last parts, a key is taken for a slip of the pen.
const SLIP: f64 = 0.75;
/// From this likeness on, of whole keys, one of another section was probably meant.
const LIKE: f64 = 0.6;

/// A known key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Nearest<'a> {
    pub(super) key: &'a str,
    /// Whether it was probably meant.
    pub(super) alike: bool,
}

/// The known dotted key that is nearest to `wrong`; `None` only if none is known.
///
/// First a slip within the section that was named; then the same last part in another section
/// (`table.max_sessions` for `server.max_sessions`); then what resembles it anywhere; at last whatever is
/// nearest in the section, or in the section whose name is nearest.
pub(super) fn nearest_key<'a>(wrong: &str, known: &[&'a str]) -> Option<Nearest<'a>> {
    let (section, leaf) = split(wrong);
    let in_section = |key: &&&str| !section.is_empty() && split(key).0 == section;
    let leaf_of = |key: &str| likeness(leaf, split(key).1);
    let whole_of = |key: &str| likeness(wrong, key);
    let meant = |key| Nearest { key, alike: true };

    let own: Vec<&'a str> = known.iter().filter(in_section).copied().collect();
    if let Some((key, _)) = best(&own, |key| slip(leaf, split(key).1)) {
        return Some(meant(key));
    }
    let same_leaf = |key: &str| (split(key).1 == leaf).then(|| whole_of(key));
    if let Some((key, _)) = best(known, same_leaf) {
        return Some(meant(key));
    }
    let like = |key: &str| {
        let (leaf, whole) = (leaf_of(key), whole_of(key));
        (leaf >= SLIP || whole >= LIKE && own.is_empty()).then_some(leaf.max(whole))
    };
    if let Some((key, _)) = best(known, like) {
        return Some(meant(key));
    }
    let far = |found: Option<(&'a str, f64)>| found.map(|(key, _)| Nearest { key, alike: false });
    if !own.is_empty() {
        return far(best(&own, |key| Some(leaf_of(key))));
    }
    // A word without a section may be meant for one.
    let named = if section.is_empty() { leaf } else { section };
    let (near, _) = best(known, |key| Some(likeness(named, split(key).0)))?;
    let near: Vec<&'a str> =
        known.iter().filter(|key| split(key).0 == split(near).0).copied().collect();
    far(best(&near, |key| Some(leaf_of(key))))
}

/// How well a last part fits as a slip: by its letters, or because one is the other's beginning
/// (`secret` for `secret_file`).
fn slip(wrong: &str, known: &str) -> Option<f64> {
    let begins = |long: &str, short: &str| {
        !short.is_empty() && long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'))
    };
    let likeness = likeness(wrong, known);
    let begun = begins(wrong, known) || begins(known, wrong);
    (likeness >= SLIP || begun).then_some(likeness)
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(one, other)
}

/// The key of the highest value, the first of equals.
fn best<'a>(keys: &[&'a str], value: impl Fn(&str) -> Option<f64>) -> Option<(&'a str, f64)> {
    let mut best: Option<(&'a str, f64)> = None;
    for key in keys {
        if let Some(value) = value(key)
            && best.is_none_or(|(_, so_far)| value > so_far)
        {
            best = Some((key, value));
        }
    }
    best
}

/// Section and last part; without a dot there is no section.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 9] = [
        "server.workers",
        "server.task_workers",
        "server.max_timers",
        "table.max_sessions",
        "log.level",
        "auth.secret",
        "auth.secret_file",
        "backend.url",
        "backend.secret_file",
    ];

    #[test]
    fn what_was_probably_meant_is_found() {
        for (wrong, meant) in [
            ("server.wrokers", "server.workers"),
            ("servr.workers", "server.workers"),
            ("servr.wrokers", "server.workers"),
            ("server.max_sessions", "table.max_sessions"),
            ("log.max_sesions", "table.max_sessions"),
            ("workers", "server.workers"),
            ("log.levle", "log.level"),
            // Its own section comes before another's key of the same name.
            ("backend.secret", "backend.secret_file"),
        ] {
            let found = nearest_key(wrong, &KEYS);
            assert_eq!(found, Some(Nearest { key: meant, alike: true }), "{wrong}");
        }
    }

    #[test]
    fn what_resembles_nothing_gets_the_nearest_all_the_same() {
        for (wrong, nearest) in [
            ("sever.x", "server.max_timers"),
            ("server.bogus", "server.workers"),
            ("servr", "server.workers"),
            ("log.x", "log.level"),
            ("backend.uri", "backend.url"),
        ] {
            let found = nearest_key(wrong, &KEYS);
            assert_eq!(found, Some(Nearest { key: nearest, alike: false }), "{wrong}");
        }
        for wrong in ["zebra.stripes", "foo", "", ".", "a.b.c"] {
            assert!(nearest_key(wrong, &KEYS).is_some(), "{wrong}");
        }
        assert_eq!(nearest_key("server.workers", &[]), None);
    }
}
