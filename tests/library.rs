//! The IM as a library: the example that adds a method, as its own program.

use crate::support::process;
use crate::support::server::Server;
use serde_json::json;

#[test]
fn an_example_adds_a_method_that_outlives_reloads_and_deaths() {
    let server = Server::example("own_method").args(&["-w", "2"]).start();
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let poke = json!({"user": "bob"});
    assert_eq!(ann.result("game.poke", poke.clone()), json!({"sessions": 1, "pokes": 1}));
    assert_eq!(bob.notification("game.poked"), json!({"by": "ann"}));

    let reloaded = server.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    assert_eq!(ann.result("game.poke", poke.clone())["pokes"], 2);
    let before = server.status();
    server.kill_worker_of(&mut ann);
    server.wait_until("another worker", |status| {
        status.ready_workers() == 2 && status.worker_pids() != before.worker_pids()
    });
    assert_eq!(ann.result("game.poke", poke), json!({"sessions": 1, "pokes": 3}));

    assert_eq!(ann.error("game.poke", json!({"user": 7})).0, -32602);
    assert_eq!(ann.error("game.poke", json!({"user": "ann"})), (-32003, "own_user".into()));
    assert_eq!(ann.error("game.other", json!({})).0, -32601);
    assert_eq!(server.client().error("game.poke", json!({"user": "bob"})).0, -32000);
    // The IM's own are all there.
    assert_eq!(ann.send_to("bob", &json!("hi"))["sessions"], 1);
    assert_eq!(bob.message_body(), "hi");
}

#[test]
fn an_example_takes_the_ims_keys_and_refuses_what_it_should() {
    let starter = Server::example("own_method").args(&["--set", "auth.mode=token"]);
    let ended = process::run(&mut starter.command());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("needs a key"), "{ended:?}");
}
