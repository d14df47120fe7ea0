//! The token mode: every bad token, rotation, and keys that no server starts with.

use crate::support::tokens::{self, Keys, NOW, base64, claims, hs256, pem, raw, signed};
use crate::support::{House, request, settings};
use dunlin_im::ImApp;
use dunlin_im::auth::{TOKEN_MAX, TokenError, verify};
use dunlin_im::ids::IdError;
use dunlin_server::App;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The words of a token mode by these keys that also wants issuer and audience.
fn words(lines: &str) -> [(&'static str, &str); 5] {
    [
        ("auth.mode", "token"),
        ("auth.keys", lines),
        ("auth.issuer", "https://id.example"),
        ("auth.audience", "dunlin"),
        // Here many are refused at one time.
        ("im.login_failures", "200"),
    ]
}

fn login(token: &str, device: &str) -> Value {
    json!({"token": token, "device": {"id": device}})
}

#[test]
fn every_algorithm_logs_in_with_what_was_minted() {
    let keys = Keys::new();
    let lines = keys.lines(&["h", "r", "e", "d"]);
    let words = words(&lines);
    let mut house = House::new(&words, 8);
    for kid in [Some("h"), Some("r"), Some("e"), Some("d"), None] {
        let token = keys.mint(&words, kid, "ann");
        let conn = house.open();
        let answer = house.call(conn, "login", login(&token, "p"));
        assert_eq!(answer["result"]["user"], "ann", "{kid:?}: {answer}");
        assert_eq!(answer["result"]["expires"], (NOW + 60) * 1_000);
        let device = &house.call(conn, "presence", json!({"users": ["ann"]}))["result"]["users"]["ann"]
            ["devices"][0]["id"];
        assert_eq!(device, "p");
        house.drop_connection(conn);
    }
}

#[test]
fn a_right_token_says_all_it_may() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let (config, keyring) = keys.load(&words(&lines));
    let token = hs256(
        Some("h"),
        &claims(&json!({
            "aud": ["other", "dunlin"], "nbf": NOW, "device": "p1", "name": "Ann Lee",
            "rooms": ["tea", "coffee"], "exp": NOW as f64 + 60.5, "more": {"sub": 7},
        })),
    );
    let claims = verify(&keyring, &config.auth, &token, NOW * 1_000).unwrap();
    assert_eq!(claims.user.as_str(), "ann");
    assert_eq!(claims.device.as_ref().map(|device| device.as_str()), Some("p1"));
    assert_eq!(claims.name.as_deref(), Some("Ann Lee"));
    let rooms: Vec<&str> = claims.rooms.iter().flatten().map(|room| room.as_str()).collect();
    assert_eq!(rooms, ["tea", "coffee"]);
    assert_eq!(claims.expires_ms, NOW * 1_000 + 60_500);
}

/// Bad tokens for keys `h` of HS256 and `r` of RS256, and why each is refused.
fn bad_tokens() -> Vec<(String, TokenError)> {
    let with = |other: Value| hs256(Some("h"), &claims(&other));
    let good = claims(&json!({}));
    let good_text = good.to_string();
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"h"}"#;
    let none = |alg: &str| {
        let header = format!(r#"{{"alg":"{alg}","kid":"h"}}"#);
        (format!("{}.{}.", base64(&header), base64(&good_text)), TokenError::Malformed)
    };
    let by_secret = |secret: &[u8], kid| {
        signed(Algorithm::HS256, kid, &good, &EncodingKey::from_secret(secret))
    };
    let rs256 = EncodingKey::from_rsa_pem(pem("rs256").as_bytes()).unwrap();
    let es256 = EncodingKey::from_ec_pem(pem("es256").as_bytes()).unwrap();
    let whole = hs256(Some("h"), &good);
    let (message, signature) = whole.rsplit_once('.').unwrap();
    let others = base64(&claims(&json!({"sub": "bob"})).to_string());
    let cut = &whole[..whole.len() - 3];
    vec![
        none("none"),
        none("None"),
        none("HS257"),
        // The public key is no secret: everybody could sign by it.
        (by_secret(pem("rs256.pub").as_bytes(), Some("r")), TokenError::WrongAlgorithm),
        (by_secret(pem("rs256.pub").trim().as_bytes(), None), TokenError::WrongSignature),
        (signed(Algorithm::RS256, Some("h"), &good, &rs256), TokenError::WrongAlgorithm),
        (signed(Algorithm::ES256, None, &good, &es256), TokenError::NoSingleKey),
        (
            signed(Algorithm::HS384, Some("h"), &good, &EncodingKey::from_secret(&[7; 64])),
            TokenError::WrongAlgorithm,
        ),
        (by_secret(&[7; 64], Some("h")), TokenError::WrongSignature),
        (hs256(Some("x"), &good), TokenError::UnknownKey("x".into())),
        (hs256(Some(""), &good), TokenError::UnknownKey(String::new())),
        (hs256(Some(&"ä".repeat(500)), &good), TokenError::UnknownKey("ä".repeat(32))),
        (format!("{message}.{}", &signature[1..]), TokenError::Malformed),
        (format!("{message}."), TokenError::WrongSignature),
        (format!("{}.{others}.{signature}", base64(header)), TokenError::WrongSignature),
        (cut.to_owned(), TokenError::WrongSignature),
        (
            raw(r#"{"alg":"HS256","kid":"h","crit":["b64"],"b64":false}"#, &good_text),
            TokenError::Critical,
        ),
        (raw(r#"{"alg":"HS256","alg":"HS256","kid":"h"}"#, &good_text), TokenError::Malformed),
        (raw(r#"{"kid":"h"}"#, &good_text), TokenError::Malformed),
        (raw("[]", &good_text), TokenError::Malformed),
        (raw(header, "7"), TokenError::WrongTypes),
        (raw(header, "{"), TokenError::WrongTypes),
        (raw(header, &"[".repeat(3_000)), TokenError::WrongTypes),
        (raw(header, r#"{"sub":"ann","sub":"bob","exp":9999999999}"#), TokenError::WrongTypes),
        (with(json!({"exp": null})), TokenError::Missing("exp")),
        (with(json!({"exp": "9999999999"})), TokenError::WrongTypes),
        (with(json!({"exp": -5})), TokenError::NoTime("exp")),
        (with(json!({"exp": NOW - 5})), TokenError::Expired),
        (with(json!({"exp": 0})), TokenError::Expired),
        (with(json!({"nbf": NOW + 6})), TokenError::NotYet),
        (with(json!({"nbf": "soon"})), TokenError::WrongTypes),
        (with(json!({"nbf": -1})), TokenError::NoTime("nbf")),
        (with(json!({"iss": null})), TokenError::WrongIssuer),
        (with(json!({"iss": "https://id.example/"})), TokenError::WrongIssuer),
        (with(json!({"iss": ["https://id.example"]})), TokenError::WrongTypes),
        (with(json!({"aud": null})), TokenError::WrongAudience),
        (with(json!({"aud": "dunlin2"})), TokenError::WrongAudience),
        (with(json!({"aud": []})), TokenError::WrongAudience),
        (with(json!({"aud": 7})), TokenError::WrongTypes),
        // Who cannot do better learns nothing of the time.
        (with(json!({"aud": "other", "exp": 0})), TokenError::WrongAudience),
        (with(json!({"sub": null})), TokenError::Missing("sub")),
        (with(json!({"sub": ""})), TokenError::BadName("sub", IdError::Empty)),
        (with(json!({"sub": 7})), TokenError::WrongTypes),
        (with(json!({"sub": "x".repeat(65)})), TokenError::BadName("sub", IdError::TooLong)),
        (with(json!({"sub": "a\u{7f}"})), TokenError::BadName("sub", IdError::ControlCharacter)),
        (with(json!({"device": ""})), TokenError::BadName("device", IdError::Empty)),
        (with(json!({"name": "x".repeat(129)})), TokenError::LongName),
        (with(json!({"rooms": "tea"})), TokenError::WrongTypes),
        (with(json!({"rooms": [7]})), TokenError::WrongTypes),
        (with(json!({"rooms": ["tea", ""]})), TokenError::BadName("rooms", IdError::Empty)),
        (with(json!({"rooms": vec!["r"; 17]})), TokenError::TooManyRooms),
        (String::new(), TokenError::Malformed),
        ("..".into(), TokenError::Malformed),
        ("a.b".into(), TokenError::Malformed),
        ("a.b.c.d".into(), TokenError::Malformed),
        ("é.ü.\u{0}".into(), TokenError::Malformed),
        ("x".repeat(TOKEN_MAX), TokenError::Malformed),
    ]
}

#[test]
fn every_bad_token_is_refused_and_the_client_learns_no_more_than_that_it_is() {
    let keys = Keys::new();
    let lines = keys.lines(&["h", "r"]);
    let words = words(&lines);
    let (config, keyring) = keys.load(&words);
    let mut house = House::new(&words, 8);
    for (token, why) in bad_tokens() {
        let shown = token.get(..token.len().min(80)).unwrap_or("?");
        assert_eq!(
            verify(&keyring, &config.auth, &token, NOW * 1_000),
            Err(why.clone()),
            "{shown}"
        );
        let conn = house.open();
        let answer = house.call(conn, "login", login(&token, "p"));
        let error = &answer["error"];
        let told = match why {
            TokenError::Expired => ("the token has expired", "token_expired"),
            _ => ("the token is not accepted", "auth_failed"),
        };
        let expected = json!({"code": -32001, "message": told.0, "data": {"reason": told.1}});
        assert_eq!(*error, expected, "{why}");
        assert_eq!(house.fail(conn, "sessions", json!({})).1, "login_required");
        house.drop_connection(conn);
    }
    let tries = bad_tokens().len();
    let status = house.worker.in_master(|master| house.app.status(master));
    assert_eq!(
        status["auth"],
        json!({
            "mode": "token", "keys": 2, "logins": 0, "refused": tries, "expired": 0,
        })
    );
}

#[test]
fn a_mebibyte_of_token_is_refused_before_it_is_read() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let words = words(&lines);
    let mut house = House::new(&words, 4);
    let conn = house.open();
    let huge = "x".repeat(1 << 20);
    assert_eq!(house.fail(conn, "login", login(&huge, "p")).0, -32602);
    let (config, keyring) = keys.load(&words);
    let long = hs256(Some("h"), &claims(&json!({"more": "x".repeat(TOKEN_MAX)})));
    let refused = verify(&keyring, &config.auth, &long, NOW * 1_000);
    assert_eq!(refused, Err(TokenError::Malformed));
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let mut words = words(&lines).to_vec();
    words.push(("auth.leeway", "3s"));
    let (config, keyring) = keys.load(&words);
    let token = hs256(Some("h"), &claims(&json!({"nbf": NOW - 10, "exp": NOW})));
    let at = |ms: u64| verify(&keyring, &config.auth, &token, ms).map(|claims| claims.expires_ms);
    assert_eq!(at((NOW - 13) * 1_000 - 1), Err(TokenError::NotYet));
    assert_eq!(at((NOW - 13) * 1_000), Ok(NOW * 1_000));
    assert_eq!(at((NOW + 3) * 1_000 - 1), Ok(NOW * 1_000));
    assert_eq!(at((NOW + 3) * 1_000), Err(TokenError::Expired));
}

#[test]
fn a_token_for_an_audience_is_none_for_a_server_that_has_none() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let (config, keyring) = keys.load(&[("auth.mode", "token"), ("auth.keys", &lines)]);
    let check =
        |other| verify(&keyring, &config.auth, &hs256(Some("h"), &claims(&other)), NOW * 1_000);
    assert_eq!(check(json!({})), Err(TokenError::WrongAudience));
    // An issuer nobody asked for is no harm.
    assert!(check(json!({"aud": null})).is_ok());
}

#[test]
fn keys_are_rotated_by_a_reload() {
    let keys = Keys::new();
    keys.write("n.key", "another secret that is as long as it must be", 0o600);
    let (old, both, new) = (keys.lines(&["h"]), keys.lines(&["n", "h"]), keys.lines(&["n"]));
    let token_of = |lines: &str| keys.mint(&words(lines), None, "ann");
    let (old_token, new_token) = (token_of(&old), token_of(&new));
    assert_eq!(token_of(&both), new_token, "the first key mints");
    let mut house = House::new(&words(&old), 8);
    let takes = |house: &mut House, token: &str| {
        let conn = house.open();
        let answer = house.call(conn, "login", login(token, "p"));
        house.drop_connection(conn);
        answer["result"].is_object()
    };
    let reload = |house: &mut House, lines: &str| {
        let (worker, app) = (&house.worker, &mut house.app);
        worker.in_master(|master| app.before_reload(master, &settings(&words(lines))))
    };
    assert_eq!((takes(&mut house, &old_token), takes(&mut house, &new_token)), (true, false));
    reload(&mut house, &both).unwrap();
    assert_eq!((takes(&mut house, &old_token), takes(&mut house, &new_token)), (true, true));
    reload(&mut house, &new).unwrap();
    assert_eq!((takes(&mut house, &old_token), takes(&mut house, &new_token)), (false, true));
    // A file that is rewritten in place is read again; one that is bad changes nothing.
    keys.write("n.key", "short", 0o600);
    let refused = reload(&mut house, &both).unwrap_err();
    assert!(refused.contains("auth.keys, key n: the secret has 5 bytes"), "{refused}");
    assert_eq!((takes(&mut house, &old_token), takes(&mut house, &new_token)), (false, true));
    keys.write("n.key", &format!("{}\r\n", tokens::SECRET), 0o600);
    reload(&mut house, &new).unwrap();
    assert!(!takes(&mut house, &new_token));
    assert!(takes(&mut house, &hs256(Some("n"), &claims(&json!({})))));
}

#[test]
fn the_short_form_is_one_key_without_a_kid() {
    let keys = Keys::new();
    let path = keys.path("h.key").display().to_string();
    let words = [("auth.mode", "token"), ("auth.secret_file", path.as_str())];
    let mut house = House::new(&words, 8);
    let conn = house.open();
    let token = keys.mint(&words, None, "ann");
    assert_eq!(house.call(conn, "login", login(&token, "p"))["result"]["user"], "ann");
    // It stays that of tokens without a kid beside others, so that it can be rotated away.
    let line = keys.lines(&["h", "r"]);
    let (config, keyring) = keys.load(&[words[0], words[1], ("auth.keys", &line)]);
    assert!(verify(&keyring, &config.auth, &token, NOW * 1_000).is_ok());
    let key = EncodingKey::from_rsa_pem(pem("rs256").as_bytes()).unwrap();
    let rs256 = signed(Algorithm::RS256, None, &claims(&json!({"aud": null})), &key);
    assert!(verify(&keyring, &config.auth, &rs256, NOW * 1_000).is_ok());
    let named = keys.mint(&[words[0], ("auth.keys", &line)], None, "ann");
    assert!(verify(&keyring, &config.auth, &named, NOW * 1_000).is_ok());
}

#[test]
fn no_server_starts_with_a_key_that_does_not_keep() {
    let keys = Keys::new();
    keys.write("empty.key", "\n", 0o600);
    keys.write("short.key", "changeme\n", 0o600);
    keys.write("known.key", "a-string-secret-at-least-256-bits-long", 0o600);
    keys.write("open.key", tokens::SECRET, 0o644);
    keys.write("long.key", &"0123456789".repeat(7_000), 0o600);
    keys.write("changeable.pub.pem", &pem("rs256.pub"), 0o646);
    keys.write("short.pub.pem", &pem("rsa1024.pub"), 0o644);
    keys.write("other.pub.pem", &pem("p384.pub"), 0o644);
    let at = |name: &str| keys.path(name).display().to_string();
    for (line, words) in [
        (format!("alg=HS256 file={}", at("empty.key")), "the secret is empty"),
        (format!("alg=HS256 file={}", at("short.key")), "the secret has 8 bytes"),
        (format!("alg=HS256 file={}", at("known.key")), "one that stands in examples"),
        (format!("alg=HS256 file={}", at("open.key")), "(mode 0644); take that away: chmod o-rwx"),
        (format!("alg=HS256 file={}", at("long.key")), "is longer than 65536 bytes"),
        (format!("alg=HS256 file={}", at("none.key")), "cannot read"),
        (format!("alg=HS256 file={}", at("")), "is no file"),
        ("alg=HS256 env=DUNLIN_TEST_NO_SUCH_KEY".into(), "DUNLIN_TEST_NO_SUCH_KEY is not set"),
        (format!("alg=RS256 file={}", at("rs256.pem")), "this is a private key"),
        (format!("alg=RS256 file={}", at("es256.pub.pem")), "no public key for RS256"),
        (format!("alg=RS256 file={}", at("short.pub.pem")), "fewer than 2048 bits"),
        (format!("alg=RS256 file={}", at("changeable.pub.pem")), "(mode 0646)"),
        (format!("alg=RS256 file={}", at("h.key")), "no public key for RS256"),
        (format!("alg=ES256 file={}", at("other.pub.pem")), "no public key for ES256"),
        (format!("alg=ES256 file={}", at("eddsa.pub.pem")), "no public key for ES256"),
        (format!("alg=EdDSA file={}", at("rs256.pub.pem")), "no public key for EdDSA"),
    ] {
        let line = format!("kid=k {line}");
        let refused = ImApp::new(&settings(&self::words(&line))).expect_err(words).to_string();
        assert!(refused.starts_with("--set: auth.keys, key k: "), "{refused}");
        assert!(refused.contains(words), "{refused}");
        // Without tokens nobody needs the key.
        assert!(ImApp::new(&settings(&[("auth.keys", &line)])).is_ok());
    }
    let none = ImApp::new(&settings(&[("auth.mode", "token")])).expect_err("no key").to_string();
    assert!(none.contains("needs a key"), "{none}");
}

#[test]
fn neither_keys_nor_tokens_are_ever_shown() {
    let keys = Keys::new();
    let lines = keys.lines(&["h", "r"]);
    let house = House::new(&words(&lines), 4);
    let shown = format!("{:?}", house.app);
    assert!(shown.contains("(Some(\"r\"), Rs256)"), "{shown}");
    assert!(
        !shown.contains(tokens::SECRET)
            && !shown.contains(&format!("{:?}", tokens::SECRET.as_bytes()))
    );
}

#[test]
fn a_notification_with_a_bad_token_counts_too_and_too_many_close() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let mut words = words(&lines).to_vec();
    words.push(("auth.max_failures", "3"));
    let mut house = House::new(&words, 8);
    let conn = house.open();
    let bad =
        |id: Value| json!({"id": id, "method": "login", "params": login("a.b.c", "p")}).to_string();
    let quiet = json!({"method": "login", "params": login("a.b.c", "p")}).to_string();
    assert!(house.say(conn, &quiet).answers.is_empty());
    assert!(house.say(conn, &bad(json!(2))).closed.is_empty());
    // A right one in between, and they are counted anew.
    let token = keys.mint(&words, None, "ann");
    assert!(house.call(conn, "login", login(&token, "p"))["result"].is_object());
    house.call(conn, "logout", json!({}));
    for id in 0..2 {
        assert!(house.say(conn, &bad(json!(id))).closed.is_empty());
    }
    let said = house.say(conn, &bad(json!(9)));
    assert_eq!(said.answers[0]["error"]["code"], -32001, "the last one is answered, too");
    assert_eq!(said.closed, [(conn, 4502)]);
    let bye = &said.told[0].1["params"];
    assert_eq!((&bye["code"], &bye["reconnect"]), (&json!(4502), &json!(false)));
}

#[test]
fn each_mode_has_its_own_login() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let mut house = House::new(&words(&lines), 4);
    let conn = house.open();
    let by_name = json!({"user": "ann", "device": {"id": "p"}});
    let said = house.say(conn, &request("login", by_name.clone()));
    assert_eq!(said.answers[0]["error"]["message"], "params.token is missing");
    let mut open = House::new(&[], 4);
    let conn = open.open();
    let said = open.say(conn, &request("login", login("a.b.c", "p")));
    assert_eq!(said.answers[0]["error"]["message"], "params.user is missing");
    let answer = open.call(conn, "login", by_name);
    assert!(answer["result"].is_object() && answer["result"].get("expires").is_none());
    let failed = open.fail(conn, "refresh", json!({"token": "a.b.c"}));
    assert_eq!(failed, (-32003, "open_mode".into()));
}

#[test]
fn a_token_for_one_device_is_for_no_other() {
    let keys = Keys::new();
    let lines = keys.lines(&["h"]);
    let mut house = House::new(&words(&lines), 4);
    let conn = house.open();
    let token = hs256(Some("h"), &claims(&json!({"device": "p1"})));
    assert_eq!(house.fail(conn, "login", login(&token, "p2")), (-32003, "wrong_device".into()));
    assert!(house.call(conn, "login", login(&token, "p1"))["result"].is_object());
}
