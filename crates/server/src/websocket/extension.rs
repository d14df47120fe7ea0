//! What a client offers in `Sec-WebSocket-Extensions`, and what is agreed on: permessage-deflate (RFC 7692)
//! without context takeover, or nothing.
//!
//! Knows the grammar of RFC 6455 section 9.1 and the four parameters of RFC 7692 section 7.1; compresses
//! nothing (`deflate.rs` does).
//!
//! Invariants:
//! 1. The first offer that can be kept wins. What is not understood in full is not accepted in part: an offer
//!    with an unknown, doubled or malformed parameter is passed over, whatever else it says.
//! 2. The answer always has both `no_context_takeover` parameters, so that no message needs an earlier one.

use std::ops::RangeInclusive;

/// Name of the only extension there is.
const PERMESSAGE_DEFLATE: &str = "permessage-deflate";
/// Window sizes that may be named.
const NAMED: RangeInclusive<u8> = 8..=15;
/// The window where none is named.
const MOST: u8 = 15;

/// An agreement to compress messages, each by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    window_bits: u8,
}

impl Agreement {
    /// The least window there is, as a base-2 logarithm. RFC 7692 allows 8, but compressors of zlib's family
    /// have no such window: an offer that insists on it is passed over.
    pub const LEAST_BITS: u8 = 9;

    /// What to agree on with a client that sent `lines` as values of `Sec-WebSocket-Extensions`, and the value
    /// of that header in the answer; `None` for no compression.
    ///
    /// The answer names `server_max_window_bits` exactly if the client did, as it must, and never
    /// `client_max_window_bits`: our inflater takes every window.
    #[must_use]
    pub fn negotiate<'h>(lines: impl IntoIterator<Item = &'h str>) -> Option<(Self, String)> {
        let mut offers = lines.into_iter().flat_map(|line| split(line, b','));
        let asked_bits = offers.find_map(read_offer)?;
        let mut answer =
            format!("{PERMESSAGE_DEFLATE}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = asked_bits {
            answer += &format!("; server_max_window_bits={bits}");
        }
        Some((Self { window_bits: asked_bits.unwrap_or(MOST) }, answer))
    }

    /// The base-2 logarithm of the window in which what is sent must be compressed: 9 to 15.
    #[must_use]
    pub const fn window_bits(self) -> u8 {
        self.window_bits
    }

    /// The agreement, or that there is none, as a plain word that can rest in shared memory.
    #[must_use]
    pub fn to_word(agreement: Option<Self>) -> u64 {
        agreement.map_or(0, |agreement| u64::from(agreement.window_bits))
    }

    /// What [`Self::to_word`] made a word of. Any word is taken; one it never makes is no agreement.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let window_bits = u8::try_from(word).ok()?;
        (Self::LEAST_BITS..=MOST).contains(&window_bits).then_some(Self { window_bits })
    }
}

/// The window that an offer asks of us, if any; `None` for an offer that cannot be kept.
fn read_offer(offer: &str) -> Option<Option<u8>> {
    let mut parts = split(offer, b';');
    if parts.next().map(trim) != Some(PERMESSAGE_DEFLATE) {
        return None;
    }
    let mut server_bits = None;
    // Kept whatever is offered: both sides compress each message by itself.
    let (mut server_alone, mut client_alone, mut client_bits) = (None, None, None);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (trim(name), Some(unquote(trim(value))?)),
            None => (trim(part), None),
        };
        let (seen, value) = match (name, value) {
            ("server_no_context_takeover", None) => (&mut server_alone, 0),
            ("client_no_context_takeover", None) => (&mut client_alone, 0),
            ("client_max_window_bits", None) => (&mut client_bits, 0),
            ("client_max_window_bits", Some(value)) => (&mut client_bits, window(&value)?),
            ("server_max_window_bits", Some(value)) => (&mut server_bits, window(&value)?),
            _ => return None,
        };
        if seen.replace(value).is_some() {
            return None;
        }
    }
    server_bits.is_none_or(|bits| bits >= Agreement::LEAST_BITS).then_some(server_bits)
}

/// A window size as RFC 7692 writes it: 8 to 15, in decimal, without leading zeros.
fn window(value: &str) -> Option<u8> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|bits| is_plain && NAMED.contains(bits))
}

/// The value of a parameter: a token, or one in quotes.
fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => plain.push(characters.next()?),
            other => plain.push(other),
        }
    }
    // Nothing may follow the closing quote.
    characters.next().is_none().then_some(plain)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The parts between separators that stand outside of quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = whole.bytes().position(|byte| {
            if quoted && !escaped && byte == b'\\' {
                escaped = true;
                return false;
            }
            quoted ^= byte == b'"' && !escaped;
            escaped = false;
            !quoted && byte == separator
        });
        // A separator is ASCII: both sides of it are whole characters.
        rest = end.map(|end| &whole[end + 1..]);
        Some(end.map_or(whole, |end| &whole[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(lines: &[&str]) -> Option<String> {
        Agreement::negotiate(lines.iter().copied()).map(|(_, answer)| answer)
    }

    #[test]
    fn an_offer_is_answered_with_no_context_takeover_on_both_sides() {
        for offer in [
            "permessage-deflate",
            "  permessage-deflate\t",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"10\"; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ] {
            assert_eq!(answer(&[offer]).as_deref(), Some(BOTH), "{offer}");
        }
    }

    #[test]
    fn the_window_a_client_asks_for_is_kept() {
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            let expected = format!("{BOTH}; server_max_window_bits={bits}");
            assert_eq!(answer(&[&offer]), Some(expected));
        }
        let quoted = answer(&["permessage-deflate; server_max_window_bits = \"1\\0\""]);
        assert_eq!(quoted, Some(format!("{BOTH}; server_max_window_bits=10")));
    }

    #[test]
    fn what_is_not_understood_is_not_accepted() {
        for offer in [
            "",
            "permessage-bzip2",
            "Permessage-Deflate",
            "x-permessage-deflate",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; level=9",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+10",
            "permessage-deflate; server_max_window_bits=1 0",
            "permessage-deflate; server_max_window_bits=266",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"10\"x",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate permessage-deflate",
            "\"permessage-deflate\"",
            "permessage-deflate\", permessage-deflate",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_kept_wins() {
        let narrow = Some(format!("{BOTH}; server_max_window_bits=10"));
        let bad = "permessage-deflate; server_max_window_bits=8";
        let good = "permessage-deflate; server_max_window_bits=10";
        assert_eq!(answer(&[&format!("{bad}, {good}, permessage-deflate")]), narrow);
        assert_eq!(answer(&["x-other, ,", bad, good, "permessage-deflate"]), narrow);
        let quoted = "x-other; a=\"b, permessage-deflate; \\\", permessage-deflate\"";
        assert_eq!(answer(&[quoted]), None, "what stands in quotes is no offer");
        assert_eq!(answer(&[&format!("{quoted}, {good}")]), narrow);
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn an_agreement_rests_as_a_word() {
        assert_eq!(Agreement::to_word(None), 0);
        for word in 0..70_000 {
            let agreement = Agreement::from_word(word);
            assert_eq!(agreement.is_some(), (9..=15).contains(&word), "{word}");
            assert!(agreement.is_none() || Agreement::to_word(agreement) == word);
        }
        assert_eq!(Agreement::from_word(u64::MAX), None);
    }

    /// A parameter, and whether an offer with it (once) can be kept.
    fn parameter() -> impl Strategy<Value = (String, bool)> {
        let names = select(vec![
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
            "mystery",
        ]);
        (names, proptest::option::of(0..20_u8), any::<bool>()).prop_map(|(name, bits, quoted)| {
            let good = match (name, bits) {
                ("server_max_window_bits", Some(bits)) => (9..=15).contains(&bits),
                ("client_max_window_bits", Some(bits)) => (8..=15).contains(&bits),
                ("mystery" | "server_max_window_bits", _) => false,
                (_, value) => value.is_none(),
            };
            let text = match bits {
                Some(bits) if quoted => format!("{name}=\"{bits}\""),
                Some(bits) => format!("{name}={bits}"),
                None => name.to_owned(),
            };
            (text, good)
        })
    }

    proptest! {
        #[test]
        fn an_offer_is_kept_exactly_if_each_parameter_can_be(
            parameters in vec(parameter(), 0..5), space in "[ \t]{0,2}",
        ) {
            let mut offer = "permessage-deflate".to_owned();
            for (text, _) in &parameters {
                offer += &format!("{space};{space}{text}");
            }
            let name = |text: &str| text.split('=').next().map(str::to_owned);
            let mut names: Vec<_> = parameters.iter().map(|(text, _)| name(text)).collect();
            names.sort();
            names.dedup();
            let good = parameters.iter().all(|(_, good)| *good) && names.len() == parameters.len();
            let got = Agreement::negotiate([offer.as_str()]);
            prop_assert_eq!(got.is_some(), good, "{}", offer);
            if let Some((agreement, answer)) = got.clone() {
                let asked = parameters.iter().find_map(|(text, _)| {
                    let value = text.strip_prefix("server_max_window_bits=")?;
                    value.trim_matches('"').parse().ok()
                });
                prop_assert_eq!(agreement.window_bits(), asked.unwrap_or(15));
                prop_assert_eq!(answer.contains("server_max_window_bits"), asked.is_some());
                // Our own answer is an offer that we would keep in the same way.
                prop_assert_eq!(Agreement::negotiate([answer.as_str()]), got);
            }
        }

        #[test]
        fn no_line_panics(lines in vec("\\PC{0,60}|[a-z_=;,\"\\\\ 0-9-]{0,80}", 0..4)) {
            let together = lines.join(",");
            let apart = Agreement::negotiate(lines.iter().map(String::as_str));
            // Several lines are one list, as long as no line leaves a quote open.
            if lines.iter().all(|line| !line.contains('"')) {
                prop_assert_eq!(apart, Agreement::negotiate([together.as_str()]));
            }
        }
    }
}
