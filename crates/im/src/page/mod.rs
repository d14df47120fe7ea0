//! The chat page: one file, no outside resource.
//!
//! Knows the texts it is made of, and which rules its browser is to keep. Invariants: 1. The page runs no
//! script and takes no style but its own: both carry a number drawn for this one answer, and the policy
//! names it. 2. It speaks to the server it came from and to nobody else.

use crate::auth::Mode;
use crate::config::ImConfig;
use crate::http;
use dunlin_server::Response;
use std::fmt::Write;

const HTML: &str = include_str!("chat.html");
const STYLE: &str = include_str!("chat.css");
const CLIENT: &str = include_str!("../../clients/dunlin.js");
const SCRIPT: &str = include_str!("chat.js");

/// What a browser gets that opens the server: the page, or where it is off a text that says how to connect.
pub(crate) fn front(config: &ImConfig) -> fn() -> Response {
    match (config.page, config.auth.mode) {
        (false, _) => http::welcome,
        (true, Mode::Open) => || chat(Mode::Open),
        (true, Mode::Token) => || chat(Mode::Token),
    }
}

/// The page. Without random bytes there is none: a browser would not run a script whose number is known.
fn chat(auth: Mode) -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return Response::text(503, "no random bytes: try again\n").header("Retry-After", "1");
    }
    respond(auth, &hex(random))
}

fn respond(auth: Mode, nonce: &str) -> Response {
    let script = format!("{CLIENT}\n{SCRIPT}");
    // The number first: what is put in after it is not searched again.
    let page = HTML.replace("{{nonce}}", nonce).replacen("{{auth}}", auth.word(), 1);
    let page = page.replacen("{{style}}", STYLE, 1).replacen("{{script}}", &script, 1);
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Response::with_type(200, "text/html; charset=utf-8", page.into_bytes())
        .header("Content-Security-Policy", &policy)
        .header("X-Content-Type-Options", "nosniff")
        .header("Referrer-Policy", "no-referrer")
        .header("Cache-Control", "no-store")
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_runs_nothing_but_its_own() {
        let response = respond(Mode::Open, "0123");
        let page = String::from_utf8(response.body).unwrap();
        for place in ["{{nonce}}", "{{auth}}", "{{style}}", "{{script}}"] {
            assert!(HTML.contains(place) && !page.contains(place), "{place} is put in");
        }
        assert_eq!(page.matches("nonce=\"0123\"").count(), 2);
        assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
        // A text that ended the script's element would end the page's script.
        assert_eq!(page.matches("</script").count(), 1);
        for outside in ["src=\"http", "href=\"http", "url(", "@import", "import(\"", " onclick="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<html lang=\"en\" data-auth=\"open\">"));
        let policy = response.headers.iter().find(|(name, _)| name == "Content-Security-Policy");
        assert!(policy.unwrap().1.contains("script-src 'nonce-0123'"));
    }

    #[test]
    fn no_two_answers_have_the_same_number() {
        assert_ne!(chat(Mode::Open).body, chat(Mode::Open).body);
    }
}
