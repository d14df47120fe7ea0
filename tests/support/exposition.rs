//! What `GET /metrics` says, read as strictly as the format is written down, so that whatever is wrong with it
//! fails the test that reads it.

use std::collections::{BTreeMap, HashSet};

/// Every sample by its name with labels, as they stand there.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    samples: BTreeMap<String, f64>,
}

impl Exposition {
    /// Reads a text; panics with the line that is not as it must be.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is cut");
        let mut samples = BTreeMap::new();
        let mut families = HashSet::new();
        let (mut name, mut kind, mut told) = (String::new(), String::new(), true);
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (family, help) = help.split_once(' ').expect(line);
                assert!(told, "{name} has no sample");
                assert!(families.insert(family.to_owned()), "twice: {line}");
                assert!(!help.is_empty(), "{line}");
                (name, kind, told) = (family.to_owned(), String::new(), false);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (family, of) = rest.split_once(' ').expect(line);
                assert!(family == name && kind.is_empty() && !told, "out of place: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
                kind = of.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let own = series.split('{').next().unwrap_or_default();
                let ends: &[&str] =
                    if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(ends.iter().any(|end| own == format!("{name}{end}")), "{kind}: {line}");
                check_labels(&series[own.len()..], line);
                let value: f64 = value.parse().expect(line);
                assert!(value.is_finite() && value >= 0.0, "{line}");
                assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
                told = true;
            }
        }
        let exposition = Self { samples };
        exposition.check_histograms();
        exposition
    }

    /// A sample; panics if there is none.
    pub(crate) fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series}: {:?}", self.samples))
    }

    /// The sum of all samples of a name, whatever their labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let found: Vec<f64> =
            self.samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "no {name} with labels");
        found.iter().sum()
    }

    /// Buckets never fall, and the last one is the count.
    fn check_histograms(&self) {
        for (series, count) in &self.samples {
            let Some((name, labels)) = series.split_once("_count") else { continue };
            let labels = labels.trim_start_matches('{').trim_end_matches('}');
            let start = if labels.is_empty() {
                format!("{name}_bucket{{le=\"")
            } else {
                format!("{name}_bucket{{{labels},le=\"")
            };
            let bound = |series: &str| -> f64 {
                series[start.len()..].trim_end_matches("\"}").parse().expect("a bound")
            };
            let mut buckets: Vec<(f64, f64)> = self
                .samples
                .iter()
                .filter(|(series, _)| series.starts_with(&start))
                .map(|(series, value)| (bound(series), *value))
                .collect();
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.len() > 2 && buckets.windows(2).all(|two| two[0].1 <= two[1].1));
            let last = buckets.last().expect("buckets");
            assert!(last.0.is_infinite() && last.1 == *count, "{series}");
        }
    }
}

fn check_labels(labels: &str, line: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(line);
    let mut names = HashSet::new();
    for pair in inner.split("\",") {
        let (name, value) = pair.split_once("=\"").expect(line);
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(!name.is_empty() && name.bytes().all(letters), "{line}");
        assert!(names.insert(name), "a label twice: {line}");
        let value = value.trim_end_matches('"');
        // Values with a quote or a line's end are a matter of the unit test.
        assert!(!value.contains(['"', '\n']), "{line}");
    }
}
