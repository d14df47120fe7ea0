//! What is counted of the API, over all workers.

use dunlin_server::{AreaRequest, Areas};
use std::sync::atomic::{AtomicU64, Ordering};

const API_AREA: &str = "im.api";

/// What is counted of the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ApiCount {
    /// A request that got what it asked for.
    Ok,
    /// A request without the key.
    Unauthorized,
    /// A request from a page whose origin is not allowed.
    Forbidden,
    /// Any other request that was wrong by itself.
    Rejected,
    /// A request that cannot be served now.
    Unavailable,
    /// Sessions that took a pushed message.
    Pushed,
    /// Sessions that were closed by a kick.
    Kicked,
}

/// Every count with its name in the status.
pub(crate) const API_COUNTS: [(ApiCount, &str); 7] = [
    (ApiCount::Ok, "ok"),
    (ApiCount::Unauthorized, "unauthorized"),
    (ApiCount::Forbidden, "forbidden"),
    (ApiCount::Rejected, "rejected"),
    (ApiCount::Unavailable, "unavailable"),
    (ApiCount::Pushed, "pushed"),
    (ApiCount::Kicked, "kicked"),
];

pub(super) const AREA: AreaRequest = AreaRequest { name: API_AREA, words: API_COUNTS.len() };

/// The words of the counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiCounts(&'static [AtomicU64]);

impl ApiCounts {
    pub(super) fn new(areas: &Areas) -> Self {
        Self(areas.words(API_AREA).expect("the server makes what `areas` asks for"))
    }

    /// Counts one more.
    pub(crate) fn count(&self, what: ApiCount) {
        self.add(what, 1);
    }

    /// Counts so many more.
    pub(crate) fn add(&self, what: ApiCount, more: usize) {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.0[what as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// The counts by their names.
    pub(crate) fn status(&self) -> serde_json::Value {
        let count = |(what, name): &(ApiCount, &str)| {
            ((*name).to_owned(), self.0[*what as usize].load(Ordering::Relaxed).into())
        };
        serde_json::Value::Object(API_COUNTS.iter().map(count).collect())
    }
}
