//! The nearest known word to one that is not known. Pure.

/// Below this likeness (0 to 1) a suggestion would only confuse.
const LEAST_LIKENESS: f64 = 0.6;

/// The known dotted key that was most likely meant by `wrong`; `None` if nothing comes near.
///
/// A key with the same last part in another section comes first (`server.max_sessions` for
/// `table.max_sessions`): a wrong section is the likelier slip.
pub(super) fn nearest_key<'a>(
    wrong: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let leaf = last_part(wrong);
    let mut best: Option<(&'a str, f64)> = None;
    for key in known {
        let whole = strsim::normalized_damerau_levenshtein(wrong, key);
        let likeness = if last_part(key) == leaf { 1.0 + whole } else { whole };
        if likeness >= LEAST_LIKENESS && best.is_none_or(|(_, so_far)| likeness > so_far) {
            best = Some((key, likeness));
        }
    }
    best.map(|(key, _)| key)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] =
        ["server.workers", "server.task_workers", "table.max_sessions", "log.level"];

    fn nearest(wrong: &str) -> Option<&'static str> {
        nearest_key(wrong, KEYS.into_iter())
    }

    #[test]
    fn slips_of_letters_section_and_depth_find_their_key() {
        assert_eq!(nearest("server.wrokers"), Some("server.workers"));
        assert_eq!(nearest("servr.workers"), Some("server.workers"));
        assert_eq!(nearest("server.max_sessions"), Some("table.max_sessions"));
        assert_eq!(nearest("workers"), Some("server.workers"));
        assert_eq!(nearest("log.levle"), Some("log.level"));
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        assert_eq!(nearest("zebra.stripes"), None);
        assert_eq!(nearest(""), None);
    }
}
