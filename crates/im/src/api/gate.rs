//! Who is let in, and to what: from a request to the resource it may use.
//!
//! Pure: a request, the key and the origins in, a decision out. Knows no session. Order: the
//! listener, then a page of strangers is refused before anything else, and who has no key learns nothing of what there is. The
//! address a request comes from grants nothing.

use super::access::Access;
use super::error::ApiError;
use dunlin_server::Request;

/// What the API has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    Push,
    Kick,
    Presence,
    Sessions,
    Rooms,
    Status,
    Metrics,
}

/// Every path with its method.
pub(crate) const RESOURCES: &[(&str, &str, Resource)] = &[
    ("POST", "/api/push", Resource::Push),
    ("POST", "/api/kick", Resource::Kick),
    ("GET", "/api/presence", Resource::Presence),
    ("GET", "/api/sessions", Resource::Sessions),
    ("GET", "/api/rooms", Resource::Rooms),
    ("GET", "/api/status", Resource::Status),
    ("GET", "/metrics", Resource::Metrics),
];

/// Whether a path is the API's, whatever is there.
pub(crate) fn is_ours(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || path == "/metrics"
}

/// The resource that a request may use.
pub(super) fn admit(request: &Request, access: &Access) -> Result<Resource, ApiError> {
    if !access.admits_admins(request.arrival.door) {
        return Err(ApiError::new(404, "not_found", "the API is on addresses of its own"));
    }
    let headers = &request.headers;
    let host = headers.first("host");
    if headers.all("origin").any(|origin| !access.origins.allows(Some(origin), host)) {
        let message = "this origin is not in websocket.allowed_origins";
        return Err(ApiError::new(403, "forbidden_origin", message));
    }
    if !has_key(request, access) {
        let message = "this needs Authorization: Bearer KEY with the key of the HTTP API";
        return Err(ApiError::new(401, "unauthorized", message).with("WWW-Authenticate", "Bearer"));
    }
    let found = RESOURCES.iter().find(|(_, path, _)| *path == request.path);
    let Some((method, _, resource)) = found else {
        return Err(ApiError::new(404, "not_found", "the API has no such path"));
    };
    match (*method, request.method.as_str()) {
        ("GET", "GET" | "HEAD") => Ok(*resource),
        ("POST", "POST") if is_json(request) => Ok(*resource),
        ("POST", "POST") => {
            let message = "a POST needs Content-Type: application/json";
            Err(ApiError::new(415, "unsupported_media_type", message))
        }
        (method, _) => {
            let allowed = if method == "GET" { "GET, HEAD" } else { method };
            let message = format!("only {allowed} is taken here");
            Err(ApiError::new(405, "method_not_allowed", message).with("Allow", allowed))
        }
    }
}

fn has_key(request: &Request, access: &Access) -> bool {
    // Of two nobody knows which is meant.
    let given = request.headers.only("authorization").and_then(|value| value.split_once(' '));
    match (given, access.key()) {
        (Some((scheme, given)), Some(key)) => {
            scheme.eq_ignore_ascii_case("bearer") && key.is(given.trim_matches(' ').as_bytes())
        }
        _ => false,
    }
}

/// A page of another site can send a form or a text without being asked about; not this.
fn is_json(request: &Request) -> bool {
    let media_type = request.headers.only("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default();
    media_type.trim_matches([' ', '\t']).eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_description_has_every_path_and_no_other() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let described: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let mut described: Vec<(String, String)> = described["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(|method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let mut served: Vec<(String, String)> = RESOURCES
            .iter()
            .map(|(method, path, _)| ((*path).to_owned(), (*method).to_owned()))
            .collect();
        described.sort();
        served.sort();
        assert_eq!(described, served);
        assert!(served.iter().all(|(path, _)| is_ours(path)));
        assert!(!is_ours("/apix") && !is_ours("/metrics/") && !is_ours("/"));
    }
}
