//! What holds for any token: nothing panics, nothing that was not signed gets in, and what gets in is
//! within its bounds.

use crate::support::tokens::{Keys, NOW, claims, hs256, raw};
use dunlin_im::auth::{AuthConfig, Keyring, TokenError, verify};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A folder with its keys, and what they were loaded to.
static HOUSE: LazyLock<(Keys, AuthConfig, Keyring)> = LazyLock::new(|| {
    let keys = Keys::new();
    let lines = keys.lines(&["h", "r", "e", "d"]);
    let (config, keyring) = keys.load(&[
        ("auth.mode", "token"),
        ("auth.keys", &lines),
        ("auth.issuer", "https://id.example"),
        ("auth.audience", "dunlin"),
    ]);
    (keys, config.auth, keyring)
});

fn check(token: &str) -> Result<dunlin_im::auth::Claims, TokenError> {
    let (_, config, keyring) = &*HOUSE;
    verify(keyring, config, token, NOW * 1_000)
}

/// What a claim may be that was made by anybody.
fn any_claim() -> impl Strategy<Value = Value> {
    let text = "[ -~é\u{0}\\n]{0,140}";
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (NOW - 100..NOW + 100).prop_map(Value::from),
        text.prop_map(Value::from),
        prop::sample::select(vec!["ann", "dunlin", "https://id.example"]).prop_map(Value::from),
        prop::collection::vec(text, 0..70).prop_map(Value::from),
        Just(json!({"a": [1]})),
    ]
}

proptest! {
    #[test]
    fn no_text_gets_in(text in "\\PC{0,300}|[A-Za-z0-9_.-]{0,300}|([A-Za-z0-9_-]{0,90}\\.){2}[A-Za-z0-9_-]{0,90}") {
        prop_assert!(check(&text).is_err());
    }

    #[test]
    fn no_header_helps_without_the_key(alg in "HS256|RS256|ES256|EdDSA|none|HS384|PS256|[a-z]{0,6}", kid in "[hredx]?") {
        // Signed by the secret of `h`, whatever it says of itself.
        let text = claims(&json!({})).to_string();
        let token = raw(&json!({"alg": alg, "kid": kid}).to_string(), &text);
        prop_assert_eq!(check(&token).is_ok(), alg == "HS256" && kid == "h");
    }

    #[test]
    fn one_byte_that_is_another_keeps_a_token_out(place: prop::sample::Index, byte in "[A-Za-z0-9_.-]") {
        let token = hs256(Some("h"), &claims(&json!({"name": "Ann", "rooms": ["tea"]})));
        let place = place.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(place..=place, &byte);
        prop_assert_eq!(check(&changed).is_ok(), changed == token);
    }

    #[test]
    fn what_gets_in_is_within_its_bounds(
        others in prop::collection::vec((prop::sample::select(vec![
            "sub", "exp", "nbf", "iss", "aud", "device", "name", "rooms", "iat", "x",
        ]), any_claim()), 0..4),
    ) {
        let mut made = claims(&json!({}));
        for (name, claim) in &others {
            made[*name] = claim.clone();
        }
        if let Ok(claims) = check(&hs256(Some("h"), &made)) {
            prop_assert_eq!(Some(claims.user.as_str()), made["sub"].as_str());
            prop_assert!((1..=64).contains(&claims.user.as_str().len()));
            prop_assert!(claims.expires_ms + 5_000 > NOW * 1_000);
            prop_assert!(claims.expires_ms <= 253_402_300_799_999);
            prop_assert!(claims.rooms.is_none_or(|rooms| rooms.len() <= 16));
            prop_assert!(claims.name.is_none_or(|name| name.len() <= 128));
            prop_assert_eq!(made["iss"].as_str(), Some("https://id.example"));
        }
    }
}
