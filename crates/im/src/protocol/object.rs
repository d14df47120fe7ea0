//! Reading a JSON object one level deep: the named fields as the text they were sent as.
//!
//! Knows no particular object. Nothing here recurses, so depth costs no stack: what stands in a field
//! is skipped over by serde_json without recursion, and read only if somebody asks for it.
//! Invariants: 1. Whole input is read: a value that is returned is followed by nothing. 2. A name that
//! stands twice is an error, so that no two readers take different values. 3. Unknown names are ignored.

use serde::de::{
    DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Why a text is not such an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjectError {
    /// It is no JSON.
    Syntax,
    /// It is JSON, but no object.
    NotAnObject,
    /// A named field stands twice.
    Duplicate(&'static str),
}

/// The fields of an object, `None` for those that are not there.
pub(crate) type Fields<'a, const N: usize> = [Option<&'a RawValue>; N];

/// Reads the named fields of the object that `text` is.
pub(crate) fn fields<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> Result<Fields<'a, N>, ObjectError> {
    let mut duplicate = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let visitor = FieldsVisitor { names: &names, duplicate: &mut duplicate };
    match reader.deserialize_map(visitor).and_then(|found| reader.end().map(|()| found)) {
        Ok(found) => Ok(found),
        Err(error) if error.is_data() => {
            Err(duplicate.map_or(ObjectError::NotAnObject, ObjectError::Duplicate))
        }
        Err(_) => Err(ObjectError::Syntax),
    }
}

/// The first name of a JSON object that is not among these.
pub(crate) fn unknown_name(text: &str, names: &[&str]) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(StrangerVisitor(names)).ok().flatten()
}

/// The text of a JSON string; `None` if the value is no string, or one with half a surrogate pair.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// The elements of a JSON array of at most `most` elements; not more than these are ever kept.
pub(crate) fn elements(value: &RawValue, most: usize) -> Result<Vec<&RawValue>, ElementsError> {
    let mut too_many = false;
    let visitor = ElementsVisitor { most, too_many: &mut too_many };
    let elements = serde_json::Deserializer::from_str(value.get()).deserialize_seq(visitor);
    elements.map_err(|_| if too_many { ElementsError::TooMany } else { ElementsError::NotAnArray })
}

/// Why a value is not such an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ElementsError {
    NotAnArray,
    TooMany,
}

/// Whether a value is `null`.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// How deep arrays and objects are nested in a valid JSON text: 0 for a number or a string.
pub(crate) fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => _ = bytes.next(),
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct FieldsVisitor<'n, const N: usize> {
    names: &'n [&'static str; N],
    duplicate: &'n mut Option<&'static str>,
}

impl<'a, const N: usize> Visitor<'a> for FieldsVisitor<'_, N> {
    type Value = Fields<'a, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found: Fields<'a, N> = [None; N];
        while let Some(place) = map.next_key_seed(Place(self.names))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value()?;
            if found[place].replace(value).is_some() {
                *self.duplicate = Some(self.names[place]);
                return Err(M::Error::custom("duplicate field"));
            }
        }
        Ok(found)
    }
}

struct StrangerVisitor<'n>(&'n [&'n str]);

impl<'a> Visitor<'a> for StrangerVisitor<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut unknown = None;
        // To its end, as a reader must.
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if unknown.is_none() && !self.0.contains(&name.as_str()) {
                unknown = Some(name);
            }
        }
        Ok(unknown)
    }
}

struct ElementsVisitor<'n> {
    most: usize,
    too_many: &'n mut bool,
}

impl<'a> Visitor<'a> for ElementsVisitor<'_> {
    type Value = Vec<&'a RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut sequence: S) -> Result<Self::Value, S::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == self.most {
                *self.too_many = true;
                return Err(S::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Which of the names a key is.
struct Place<'n>(&'n [&'static str]);

impl<'a> DeserializeSeed<'a> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'a>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<[Option<&str>; 2], ObjectError> {
        fields(text, ["a", "b"]).map(|found| found.map(|field| field.map(RawValue::get)))
    }

    #[test]
    fn fields_come_as_they_were_sent() {
        assert_eq!(read(r#" {"b": [1, {"a":2}], "c":{}} "#), Ok([None, Some(r#"[1, {"a":2}]"#)]));
        assert_eq!(read(r#"{"\u0061":null}"#), Ok([Some("null"), None]));
        assert_eq!(read("{}"), Ok([None, None]));
    }

    #[test]
    fn anything_else_is_an_error_of_its_kind() {
        for text in ["[]", "7", "null", "\"a\"", "[{\"a\":1}]"] {
            assert_eq!(read(text), Err(ObjectError::NotAnObject), "{text}");
        }
        for text in
            ["", "{", "{\"a\":}", "{} {}", "{\"a\":1,}", "{\"a\":tru}", "{'a':1}", "{\"z\":\"\n\"}"]
        {
            assert_eq!(read(text), Err(ObjectError::Syntax), "{text}");
        }
        assert_eq!(read(r#"{"a":1,"a":2}"#), Err(ObjectError::Duplicate("a")));
        assert!(read(r#"{"z":1,"z":2}"#).is_ok());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
        assert!(read(&deep).is_ok());
        assert_eq!(depth(&deep), 400_001);
        assert_eq!(depth(r#"{"a[[[\"[":["]]]",{}]}"#), 3);
        assert_eq!(depth("12"), 0);
        let open = "{\"a\":[".repeat(100_000);
        assert_eq!(read(&open), Err(ObjectError::Syntax));
    }

    #[test]
    fn strings_are_unescaped_where_needed() {
        let raw = |text: &'static str| serde_json::from_str::<&RawValue>(text).unwrap();
        assert_eq!(string(raw("\"plain\"")).as_deref(), Some("plain"));
        assert_eq!(string(raw(r#""a\n\u00e9""#)).as_deref(), Some("a\né"));
        assert_eq!(string(raw("7")), None);
        assert_eq!(string(raw(r#""\ud800""#)), None);
        assert_eq!(elements(raw("[1,2]"), 2).map(|list| list.len()), Ok(2));
        assert_eq!(elements(raw("[1,2]"), 1).map(|list| list.len()), Err(ElementsError::TooMany));
        assert_eq!(elements(raw("{}"), 1).map(|list| list.len()), Err(ElementsError::NotAnArray));
    }
}
