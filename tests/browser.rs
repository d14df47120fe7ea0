//! The chat page as people use it: a real browser, a real server.

use crate::outside::with_a_key_file;
use crate::support::Server;
use crate::support::http::get;
use crate::support::outside::BROWSER;

/// Short absences are told soon: the test waits for one.
const OPEN: &str = "[server]\nworkers = 2\n[im]\npresence_debounce = \"300ms\"";

#[test]
fn two_browsers_chat_and_do_not_notice_a_reload() {
    BROWSER.plays("chat", &Server::start(OPEN));
}

#[test]
fn a_phone_and_a_keyboard_are_enough() {
    BROWSER.plays("phone", &Server::start(OPEN));
}

#[test]
fn names_and_messages_stay_text() {
    BROWSER.plays("hostile", &Server::start(OPEN));
}

#[test]
fn nothing_is_lost_by_what_people_do_without_thinking() {
    BROWSER.plays("habits", &Server::start(OPEN));
}

#[test]
fn a_crowded_room_fits_every_screen_and_is_left_for_good() {
    BROWSER.plays("crowd", &Server::start("[server]\nworkers = 2\n[im]\nmax_watches = 2"));
}

#[test]
fn what_is_refused_waits_or_can_be_mended() {
    let few = "[im]\nsend_rate = 4\nsend_burst = 2\nmax_body = \"1KiB\"";
    BROWSER.plays("refused", &Server::start(few));
}

#[test]
fn who_was_closed_for_good_comes_back_by_a_button() {
    BROWSER.plays("kicked", &Server::start(OPEN));
}

#[test]
fn a_browser_comes_back_when_the_server_is_started_again() {
    // When something is typed for nobody.
    BROWSER.plays_over_a_restart("away", Server::start(OPEN), "online", "typed");
}

#[test]
fn a_browser_comes_in_by_a_token_and_is_refused_by_a_bad_one() {
    let config = "[auth]\nmode = \"token\"\nkeys = [\"kid=h alg=HS256 file=token.key\"]\n";
    BROWSER.plays("token", &with_a_key_file(Server::configure(config)).start());
}

#[test]
fn without_the_page_there_is_a_text_also_after_a_reload() {
    let server = Server::start("[http]\npage = true");
    let answer = get(server.address, "/");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(answer.body.contains("<title>dunlin chat</title>"));
    server.dir().write_config("[http]\npage = false");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let text = get(server.address, "/");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.body.contains("ws://HOST:PORT/ws"), "{}", text.body);
}
