//! The table of `tests/outside/protocol.json` against the real binary, by clients that we did not write;
//! and what must not be missing in it, so that nothing becomes part of the protocol untested.

use crate::architecture::{read, root};
use crate::support::Server;
use crate::support::outside::{NODE_TABLE, PYTHON_TABLE};
use dunlin_im::close::CLOSE_REASONS;
use dunlin_im::protocol::METHODS;
use dunlin_im::protocol::code::CODES;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fmt::Display;

fn table() -> Json {
    let text = read(&root().join("tests/outside/protocol.json"));
    serde_json::from_str(&text).expect("the table is JSON")
}

fn list<'t>(value: &'t Json, name: &str) -> &'t [Json] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn play(name: &str) {
    let table = table();
    let config = table["servers"][name].as_str().expect("a server of the table");
    for outside in [PYTHON_TABLE, NODE_TABLE] {
        outside.plays(name, &crate::outside::with_a_key_file(Server::configure(config)).start());
    }
}

#[test]
fn every_row_of_the_open_server_holds() {
    play("open");
}

#[test]
fn every_row_of_the_token_server_holds() {
    play("token");
}

#[test]
fn every_row_of_the_other_servers_holds() {
    let table = table();
    let servers = table["servers"].as_object().expect("servers by name");
    let others = servers.keys().filter(|name| !["open", "token"].contains(&name.as_str()));
    assert!(others.map(|name| play(name)).count() >= 3);
}

/// Methods without parameters have none to be missing.
const WITHOUT_PARAMETERS: [&str; 3] = ["logout", "ping", "sessions"];

#[test]
fn every_method_is_called_well_and_in_each_wrong_way() {
    let table = table();
    for (name, _) in METHODS {
        let blocks = || list(&table, "methods").iter().filter(|block| block["method"] == name);
        let good = blocks().map(|block| list(block, "good").len()).sum::<usize>();
        let in_scenes = steps(&table, "call").filter(|step| step[2] == name).count();
        assert!(good + in_scenes > 0, "{name} is not called with good parameters");
        let whys: BTreeSet<&str> = blocks()
            .flat_map(|block| list(block, "bad"))
            .map(|row| row["why"].as_str().expect("each bad row says what is wrong"))
            .collect();
        let mut wanted = vec!["type"];
        if !WITHOUT_PARAMETERS.contains(&name) {
            wanted.extend(["missing", "long"]);
        }
        if name != "ping" {
            wanted.push("state");
        }
        for why in wanted {
            assert!(whys.contains(why), "{name} has no bad row for: {why}");
        }
    }
}

/// Every value in a list `[code, …]` of a row of any kind.
fn codes(table: &Json) -> BTreeSet<i64> {
    let rows = list(table, "methods").iter().flat_map(|block| list(block, "bad"));
    let rows = rows.chain(list(table, "texts")).map(|row| &row["error"][0]);
    let fails = steps(table, "fail").map(|step| &step[4][0]);
    rows.chain(fails).map(|code| code.as_i64().expect("a number")).collect()
}

fn steps<'t>(table: &'t Json, verb: &'t str) -> impl Iterator<Item = &'t Json> {
    let steps = list(table, "scenes").iter().flat_map(|scene| list(scene, "steps"));
    steps.filter(move |step| step[0] == verb)
}

#[test]
fn every_error_and_close_code_is_reached() {
    let table = table();
    let reached = codes(&table);
    for code in CODES {
        reached_or_told(&table, "codes", reached.contains(&code.number().into()), code.number());
    }
    for code in reached {
        let known = CODES.iter().any(|known| i64::from(known.number()) == code);
        assert!(known, "{code} is no code");
    }
    let closes: BTreeSet<i64> =
        steps(&table, "close").map(|step| step[2].as_i64().expect("a close code")).collect();
    // The client's own, and the engine's.
    for code in [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013] {
        reached_or_told(&table, "closes", closes.contains(&code.into()), code);
    }
    let reasons: BTreeSet<&str> =
        steps(&table, "close").filter_map(|step| step[3].as_str()).collect();
    for reason in CLOSE_REASONS {
        assert!(closes.contains(&reason.code().into()), "no scene ends with {}", reason.code());
        reached_or_told(&table, "reasons", reasons.contains(reason.text()), reason.text());
    }
}

/// What no row reaches names the test that does, which must be there.
fn reached_or_told(table: &Json, kind: &str, reached: bool, code: impl Display) {
    let told = table["elsewhere"][kind][code.to_string()].as_str();
    match told {
        None => assert!(reached, "no row reaches {code}, and nothing says where it is reached"),
        Some("later") => assert!(!reached, "{code} is reached: it is not for later any more"),
        Some(place) => {
            let (file, test) = place.split_once("::").expect("FILE::TEST");
            let text = read(&root().join(file));
            assert!(text.contains(&format!("fn {test}(")), "{code}: {file} has no test {test}");
        }
    }
}
