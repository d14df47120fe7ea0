//! Which paths there are, and what they answer without an upgrade.
//!
//! Pure: a method and a path in, a response out. Knows no session.

use crate::page;
use dunlin_server::Response;
use dunlin_server::http::Door;

/// Whether a WebSocket upgrade is taken on a path; by the listeners for everybody alone.
pub(crate) fn takes_upgrade(path: &str, door: Door) -> bool {
    door == Door::Public && matches!(path, "/" | "/ws")
}

/// What an upgrade on another path gets.
pub(crate) fn no_such_path(door: Door) -> Response {
    Response::text(
        404,
        match door {
            Door::Public => "not found: the IM is on /ws\n",
            Door::Admin => {
                "not found: here are /dashboard, /api, /metrics, /healthz and /readyz, no IM\n"
            }
        },
    )
}

/// The answer to a plain request; `stopping`: the server takes no new connections any more; `front`: what
/// a browser gets that opens the server; `admins`: whether who runs the server is served at this door.
pub(crate) fn respond(
    method: &str,
    path: &str,
    door: Door,
    stopping: bool,
    front: fn() -> Response,
    admins: bool,
) -> Response {
    let answer = match path {
        "/dashboard" if admins => page::dashboard,
        "/" | "/ws" if door == Door::Admin => return no_such_path(door),
        "/" => front,
        "/readyz" if stopping => || Response::text(503, "stopping\n").header("Retry-After", "1"),
        "/healthz" | "/readyz" => || Response::text(200, "ok\n"),
        "/ws" => {
            || Response::text(426, "this path speaks WebSocket\n").header("Upgrade", "websocket")
        }
        _ => return no_such_path(door),
    };
    match method {
        "GET" | "HEAD" => answer(),
        _ => Response::text(405, "only GET and HEAD\n").header("Allow", "GET, HEAD"),
    }
}

/// What a browser gets where there is no chat page.
pub(crate) fn welcome() -> Response {
    Response::text(200, WELCOME)
}

const WELCOME: &str = "\
dunlin: an instant-messaging server

Connect with a WebSocket to /ws on this address (ws://HOST:PORT/ws) and speak JSON-RPC 2.0:

  -> {\"id\":1,\"method\":\"login\",\"params\":{\"user\":\"ann\",\"device\":{\"id\":\"d1\"}}}
  -> {\"id\":2,\"method\":\"send\",\"params\":{\"to\":{\"user\":\"bob\"},\"body\":\"hello\"}}

The protocol is described in docs/protocol.md of the source, with a client in JavaScript beside it. There
is a chat page at this place where the config says `http.page = true`.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(method: &str, path: &str, door: Door, stopping: bool) -> Response {
        respond(method, path, door, stopping, welcome, true)
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        let mut found = response.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    #[test]
    fn each_path_has_its_answer() {
        for (method, path, status) in [
            ("GET", "/", 200),
            ("HEAD", "/healthz", 200),
            ("GET", "/readyz", 200),
            ("GET", "/ws", 426),
            ("POST", "/ws", 405),
            ("DELETE", "/healthz", 405),
            ("get", "/", 405),
            ("GET", "/nope", 404),
            ("POST", "/nope", 404),
            ("GET", "/metrics", 404),
            ("GET", "/dashboard", 200),
            ("POST", "/dashboard", 405),
            ("GET", "/ws/", 404),
        ] {
            assert_eq!(plain(method, path, Door::Public, false).status, status, "{method} {path}");
        }
        assert_eq!(plain("GET", "/healthz", Door::Public, false).body, b"ok\n");
        assert_eq!(header(&plain("GET", "/ws", Door::Public, false), "Upgrade"), Some("websocket"));
        assert_eq!(header(&plain("POST", "/", Door::Public, false), "Allow"), Some("GET, HEAD"));
        assert_eq!(plain("GET", "/readyz", Door::Public, true).status, 503);
        assert_eq!(plain("GET", "/healthz", Door::Public, true).status, 200);
        let takes = |path| takes_upgrade(path, Door::Public);
        assert!(takes("/ws") && takes("/") && !takes("/wss"));
        // Where who runs the server has a door of its own, nobody else is served there.
        assert!(!takes_upgrade("/ws", Door::Admin) && !takes_upgrade("/", Door::Admin));
        let elsewhere = respond("GET", "/dashboard", Door::Public, false, welcome, false);
        assert_eq!(elsewhere.status, 404, "it has a door of its own");
        for (path, status) in
            [("/", 404), ("/dashboard", 200), ("/ws", 404), ("/healthz", 200), ("/readyz", 200)]
        {
            let answer = plain("GET", path, Door::Admin, false);
            assert_eq!(answer.status, status, "{path}");
            let said = String::from_utf8_lossy(&answer.body);
            assert!(!said.contains("the IM is on"), "{path}: {said}");
        }
    }
}
