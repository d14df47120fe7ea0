//! The pages, chat and dashboard: one file each, no outside resource.
//!
//! Knows the texts they are made of, and which rules their browser is to keep. Invariants: 1. A page runs no
//! script and takes no style but its own: both carry a number drawn for this one answer, and the policy
//! names it. 2. It speaks to the server it came from and to nobody else. 3. There is nothing in it that not
//! everybody may see: what the dashboard shows it asks for, with the key that it was given.

use crate::auth::Mode;
use crate::config::ImConfig;
use crate::http;
use dunlin_server::Response;
use std::fmt::Write;

/// What both begin with.
const HEAD: &str = include_str!("head.html");

const HTML: &str = include_str!("chat/page.html");
const STYLE: &str = include_str!("chat/page.css");
const SCRIPT: &str = concat!(
    include_str!("../../clients/dunlin.js"),
    include_str!("elements.js"),
    include_str!("chat/talks.js"),
    include_str!("chat/view.js"),
    include_str!("chat/page.js"),
);

const DASHBOARD_HTML: &str = include_str!("dashboard/board.html");
const DASHBOARD_STYLE: &str = include_str!("dashboard/board.css");
const DASHBOARD_SCRIPT: &str = concat!(
    include_str!("elements.js"),
    include_str!("dashboard/figures.js"),
    include_str!("dashboard/charts.js"),
    include_str!("dashboard/board.js"),
);

/// What a browser gets that opens the server: the page, or where it is off a text that says how to connect.
pub(crate) fn front(config: &ImConfig) -> fn() -> Response {
    match (config.page, config.auth.mode) {
        (false, _) => http::welcome,
        (true, Mode::Open) => || chat(Mode::Open),
        (true, Mode::Token) => || chat(Mode::Token),
    }
}

fn chat(auth: Mode) -> Response {
    with_number(|nonce| chat_with(auth, nonce))
}

/// The dashboard. It has no figures of its own, so everybody may have it.
pub(crate) fn dashboard() -> Response {
    with_number(dashboard_with)
}

/// A page with a number of its own. Without random bytes there is none: a browser would not run a script whose
/// number is known.
fn with_number(page: impl FnOnce(&str) -> Response) -> Response {
    let mut random = [0; 16];
    if getrandom::fill(&mut random).is_err() {
        return Response::text(503, "no random bytes: try again\n").header("Retry-After", "1");
    }
    page(&hex(random))
}

fn chat_with(auth: Mode, nonce: &str) -> Response {
    // The number first: what is put in after it is not searched again.
    let html = HTML.replace("{{nonce}}", nonce).replacen("{{auth}}", auth.word(), 1);
    respond(&html, STYLE, SCRIPT, nonce)
}

fn dashboard_with(nonce: &str) -> Response {
    let html = DASHBOARD_HTML.replace("{{nonce}}", nonce);
    respond(&html, DASHBOARD_STYLE, DASHBOARD_SCRIPT, nonce)
}

fn respond(html: &str, style: &str, script: &str, nonce: &str) -> Response {
    let page = html.replacen("{{head}}", HEAD, 1);
    let page = page.replacen("{{style}}", style, 1).replacen("{{script}}", script, 1);
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

    /// Everything is put in, and nothing comes from elsewhere.
    fn check(response: Response, html: &str, places: &[&str]) -> String {
        let page = String::from_utf8(response.body).unwrap();
        for place in places {
            assert!(html.contains(place) && !page.contains(place), "{place} is put in");
        }
        assert_eq!(page.matches("nonce=\"0123\"").count(), 2);
        assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
        // A text that ended the script's element would end the page's script.
        assert_eq!(page.matches("</script").count(), 1);
        for outside in [
            "src=\"http",
            "href=\"http",
            "url(",
            "@import",
            "import(\"",
            " onclick=",
            " style=\"",
            "innerHTML",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        let policy = response.headers.iter().find(|(name, _)| name == "Content-Security-Policy");
        assert!(policy.unwrap().1.contains("script-src 'nonce-0123'"));
        page
    }

    #[test]
    fn the_pages_are_whole_and_run_nothing_but_their_own() {
        let places = ["{{nonce}}", "{{auth}}", "{{head}}", "{{style}}", "{{script}}"];
        let page = check(chat_with(Mode::Open, "0123"), HTML, &places);
        assert!(page.contains("<html lang=\"en\" data-auth=\"open\">"));
        let places = ["{{nonce}}", "{{head}}", "{{style}}", "{{script}}"];
        check(dashboard_with("0123"), DASHBOARD_HTML, &places);
    }

    #[test]
    fn no_two_answers_have_the_same_number() {
        assert_ne!(chat(Mode::Open).body, chat(Mode::Open).body);
        assert_ne!(dashboard().body, dashboard().body);
    }
}
