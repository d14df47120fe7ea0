//! `GET /metrics`: figures of the whole server as Prometheus reads them.
//!
//! [`families`] is the table of names, [`place`] finds their samples in the status object, this writes them
//! down. Pure but for that object, which any worker makes from shared memory: whichever answers, it answers for
//! all.

mod families;
mod place;

use self::families::{Family, families};
use super::error::ApiError;
use super::{Call, query};
use dunlin_server::Response;
use serde_json::Value as Json;
use std::fmt::Write as _;

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Call<'_, '_> {
    pub(super) fn metrics(&mut self) -> Result<Response, ApiError> {
        query::parameters(self.request, &[])?;
        let text = text(&self.context.status(self.app));
        Ok(Response::with_type(200, MEDIA_TYPE, text.into_bytes()))
    }
}

/// Every figure that stands in a status; what does not is left out.
fn text(status: &Json) -> String {
    let mut text = String::new();
    for family in families() {
        write_family(&mut text, &family, status);
    }
    text
}

fn write_family(text: &mut String, family: &Family, status: &Json) {
    let samples = family.place.samples(status, family.unit);
    if samples.is_empty() {
        return;
    }
    let (name, kind, help) = (&family.name, family.kind.name(), family.help);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for sample in samples {
        let _ = write!(text, "{name}{}", sample.suffix);
        for (place, (label, value)) in sample.labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let _ = write!(text, "{before}{label}=\"{}\"", escaped(value));
        }
        let after = if sample.labels.is_empty() { "" } else { "}" };
        let _ = writeln!(text, "{after} {}", sample.value);
    }
}

/// A label's value: names of added processes and versions are not ours to choose.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
