//! The parameters of a query, each of them known.
//!
//! Pure. Invariant: what nobody reads is refused and named, so that a typo is no silent default.

use super::error::ApiError;
use dunlin_server::Request;

/// The parameters of a request, all of which are among `known`.
pub(super) fn parameters(
    request: &Request,
    known: &[&str],
) -> Result<Vec<(String, String)>, ApiError> {
    let raw = request.query.as_deref().unwrap_or_default();
    if let Some(broken) = raw.split('&').find(|pair| has_broken_escape(pair)) {
        let name = broken.split('=').next().unwrap_or_default();
        return Err(ApiError::parameter(name, "has a % that begins no escape (%25 is a %)"));
    }
    let pairs = request.query_pairs();
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((unknown, _)) => Err(ApiError::parameter(unknown, "is no parameter of this path")),
        None => Ok(pairs),
    }
}

/// Whether a `%` is not followed by two hexadecimal digits.
fn has_broken_escape(text: &str) -> bool {
    let mut after = text.split('%').map(str::as_bytes);
    after.next();
    after.any(|rest| !matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()))
}

/// The value of a parameter that may stand once.
pub(super) fn once<'p>(
    pairs: &'p [(String, String)],
    name: &str,
) -> Result<Option<&'p str>, ApiError> {
    let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(ApiError::parameter(name, "stands twice")),
    }
}

/// `limit` and `cursor` of a page: how many at most, and the row it begins with.
pub(super) fn page(
    pairs: &[(String, String)],
    usual: u64,
    most: u64,
) -> Result<(usize, u32), ApiError> {
    let limit = match once(pairs, "limit")? {
        Some(text) => number("limit", text, 1, most)?,
        None => usual,
    };
    let cursor = match once(pairs, "cursor")? {
        Some(text) => number("cursor", text, 0, u64::from(u32::MAX))?,
        None => 0,
    };
    Ok((usize::try_from(limit).unwrap_or(usize::MAX), u32::try_from(cursor).unwrap_or(u32::MAX)))
}

/// A number in decimal digits, in these bounds.
pub(super) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (least..=most).contains(number));
    let wanted =
        || ApiError::parameter(name, format_args!("must be a number from {least} to {most}"));
    number.ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::simulation::get;

    fn ask(query: &str) -> Request {
        Request { query: Some(query.into()), ..get("/api/x") }
    }

    #[test]
    fn each_parameter_is_known() {
        let pairs = parameters(&ask("user=a&user=b%20c"), &["user"]).unwrap();
        assert_eq!(pairs, [("user".into(), "a".into()), ("user".into(), "b c".into())]);
        assert!(parameters(&get("/api/x"), &[]).unwrap().is_empty());
        for query in [
            "usr=a",
            "user=a&x",
            "=",
            "user%00=a",
            "USER=a",
            "user=%zz",
            "user=a&user=%4",
            "user=%",
        ] {
            let error = parameters(&ask(query), &["user"]).unwrap_err();
            assert_eq!((error.status, error.reason), (400, "bad_request"), "{query}");
        }
        assert!(once(&pairs, "user").is_err());
        assert_eq!(once(&pairs, "limit"), Ok(None));
    }

    #[test]
    fn a_number_is_digits_within_its_bounds() {
        assert_eq!(number("limit", "7", 1, 9), Ok(7));
        assert_eq!(number("limit", "09", 1, 9), Ok(9));
        for text in ["", "0", "10", "+7", "-1", "7 ", "0x7", "٧", "99999999999999999999999"] {
            assert!(number("limit", text, 1, 9).is_err(), "{text:?}");
        }
    }
}
