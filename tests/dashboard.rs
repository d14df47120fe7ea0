//! The dashboard as who runs a server uses it: a real browser, a real server.

use crate::support::http::get;
use crate::support::outside::DASHBOARD;
use crate::support::{Client, Server};
use std::net::SocketAddr;

const TOML: &str = "[server]\nworkers = 2\ntask_workers = 1\n[im]\nheartbeat = \"10m\"";

#[test]
fn it_asks_for_the_key_shows_the_status_and_marks_what_happens() {
    let server = Server::start(TOML);
    let mut clients: Vec<Client> =
        (0..5).map(|number| server.client().login(&format!("u{number}"))).collect();
    DASHBOARD.plays("live", &server);
    assert!(clients.iter_mut().all(Client::is_open));
}

#[test]
fn a_phone_and_a_keyboard_are_enough_to_read_it() {
    DASHBOARD.plays("phone", &Server::start(TOML));
}

#[test]
fn it_says_that_the_server_is_away_and_goes_on_when_it_is_back() {
    let starter = Server::configure("[http]\napi_key_file = \"api.key\"\n");
    starter.dir().write_key("api.key", "5c0e7a31d9b84f62a7e31b0c95d4f802\n", 0o600);
    // When it says that the server is away.
    DASHBOARD.plays_over_a_restart("away", starter.start(), "shown", "told");
}

#[test]
fn it_is_at_the_door_of_who_runs_the_server_whether_or_not_there_is_a_chat_page() {
    let media_type = |address, path: &str| {
        let answer = get(address, path);
        (answer.status, answer.header("content-type").unwrap_or_default().to_owned())
    };
    let html = (200, "text/html; charset=utf-8".to_owned());
    let server = Server::start("[http]\npage = false");
    assert_eq!(media_type(server.address, "/dashboard"), html);
    assert_eq!(media_type(server.address, "/dashboard/").0, 404);
    let apart = Server::start("[http]\nadmin_listen = [\"127.0.0.1:0\"]");
    let admin: SocketAddr =
        apart.status().text("/admin_listen/0").parse().expect("the admin's address");
    assert_eq!(media_type(apart.address, "/dashboard").0, 404);
    assert_eq!(media_type(admin, "/dashboard"), html);
    assert_eq!(get(admin, "/api/status").status, 401, "the page is everybody's, figures are not");
}
