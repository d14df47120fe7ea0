//! What an operator sees of settings: precedence, and one clear line for each mistake.

use super::*;
use proptest::prelude::*;

const KEYS: &[KeySpec] = &[
    key("server.workers", KeyKind::Count { min: 0, max: 1024 }, "0", false),
    key("server.listen", KeyKind::List, "[\"127.0.0.1:9502\"]", false),
    key("server.stop_timeout", KeyKind::Duration { min_ms: 0, max_ms: 3_600_000 }, "\"30s\"", true),
    key("log.level", KeyKind::Choice(&["info", "debug"]), "\"info\"", true),
    key("auth.secret_file", KeyKind::Path, "\"\"", true),
];

const SECRETS: &[KeySpec] = &[
    KeySpec { secret: true, ..key("auth.secret", KeyKind::Text, "\"\"", true) },
    KeySpec { secret: true, ..key("redis.url", KeyKind::Text, "\"\"", true) },
];

const fn key(key: &'static str, kind: KeyKind, default: &'static str, reloadable: bool) -> KeySpec {
    KeySpec { key, kind, default, reloadable, secret: false, doc: "" }
}

fn file(entries: &[(&str, Literal, usize)]) -> Layers {
    let entries = entries.iter().map(|(key, value, line)| FileEntry {
        key: (*key).to_owned(),
        value: value.clone(),
        line: *line,
    });
    let file = FileLayer { path: "dunlin.toml".into(), entries: entries.collect() };
    Layers { file: Some(file), ..Layers::default() }
}

fn environment(name: &str, value: &str) -> Layers {
    Layers { environment: vec![(name.into(), value.into())], ..Layers::default() }
}

fn flag(key: &str, value: &str) -> Layers {
    let mut layers = Layers::default();
    layers.flag_words(key, value, "--set");
    layers
}

fn resolve(layers: Layers) -> Result<Settings, SettingsError> {
    Settings::resolve(&[KEYS, SECRETS], layers)
}

fn complaint(layers: Layers) -> String {
    resolve(layers).unwrap_err().to_string()
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let mut layers = Layers::default();
    let settings = resolve(layers.clone()).unwrap();
    assert_eq!(
        (settings.count("server.workers"), settings.origin("server.workers")),
        (0, &Origin::Default)
    );

    layers.file = file(&[("server.workers", Literal::Integer(1), 2)]).file;
    let settings = resolve(layers.clone()).unwrap();
    assert_eq!(settings.count("server.workers"), 1);
    assert_eq!(settings.origin("server.workers").to_string(), "dunlin.toml:2");

    layers.environment = vec![("DUNLIN_SERVER__WORKERS".into(), "2".into())];
    let settings = resolve(layers.clone()).unwrap();
    assert_eq!(settings.count("server.workers"), 2);
    assert_eq!(settings.origin("server.workers").to_string(), "DUNLIN_SERVER__WORKERS");

    layers.flag_words("server.workers", "3", "-w");
    layers.flag_words("server.workers", "4", "--set");
    let settings = resolve(layers).unwrap();
    assert_eq!(settings.count("server.workers"), 4);
    assert_eq!(settings.origin("server.workers").to_string(), "--set");
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    assert_eq!(
        complaint(file(&[("server.wrokers", Literal::Integer(1), 3)])),
        "dunlin.toml:3: unknown key server.wrokers; did you mean server.workers?"
    );
    assert_eq!(
        complaint(environment("DUNLIN_SERVER__WROKERS", "1")),
        "DUNLIN_SERVER__WROKERS: unknown key server.wrokers; did you mean DUNLIN_SERVER__WORKERS?"
    );
    let zebra = complaint(flag("zebra", "1"));
    assert!(zebra.starts_with("--set: unknown key zebra; the nearest known key is "), "{zebra}");
}

#[test]
fn an_empty_section_is_known_by_its_keys() {
    assert!(resolve(file(&[("server", Literal::Section, 1)])).is_ok());
    assert_eq!(
        complaint(file(&[("servr", Literal::Section, 1)])),
        "dunlin.toml:1: unknown key servr; the nearest known key is server.workers"
    );
    assert_eq!(
        complaint(file(&[("server.workers", Literal::Section, 1)])),
        "dunlin.toml:1: server.workers wants a whole number, not a section"
    );
}

#[test]
fn variables_without_a_double_underscore_are_not_ours() {
    assert!(resolve(environment("DUNLIN_HOME", "/x")).is_ok());
    assert!(resolve(environment("PATH__X", "/x")).is_ok());
}

#[test]
fn a_bound_is_named_with_key_and_place() {
    assert_eq!(
        complaint(flag("server.workers", "1025")),
        "--set: server.workers is 1025, but must be at most 1024"
    );
    assert_eq!(
        complaint(environment("DUNLIN_SERVER__STOP_TIMEOUT", "2h")),
        "DUNLIN_SERVER__STOP_TIMEOUT: server.stop_timeout is 2h, but must be at most 1h"
    );
    assert_eq!(
        complaint(file(&[("log.level", Literal::Text("loud".into()), 9)])),
        "dunlin.toml:9: log.level wants one of info, debug, not \"loud\""
    );
}

#[test]
fn a_secret_is_refused_as_a_flag_and_hidden_everywhere() {
    let line = complaint(flag("auth.secret", "hush"));
    assert!(line.contains("auth.secret_file") && !line.contains("hush"), "{line}");
    let line = complaint(flag("redis.url", "redis://u:hush@h"));
    assert!(line.contains("DUNLIN_REDIS__URL") && !line.contains("hush"), "{line}");
    let line = complaint(file(&[("auth.secret", Literal::Integer(123_456), 1)]));
    assert!(!line.contains("123"), "{line}");

    let settings = resolve(environment("DUNLIN_AUTH__SECRET", "hush")).unwrap();
    assert_eq!(settings.text("auth.secret"), "hush");
    let shown: Vec<String> = settings.iter().map(Setting::shown).collect();
    assert_eq!(shown.last().map(String::as_str), Some("\"\""), "an unset secret is shown as unset");
    assert!(shown.contains(&"***".to_owned()) && !shown.concat().contains("hush"), "{shown:?}");
}

#[test]
fn no_key_is_suggested_that_is_refused_where_it_would_be_written() {
    for wrong in ["backend.secret", "auth.secre", "redis.url_x", "redis.bogus", "secret"] {
        let line = complaint(flag(wrong, "x"));
        let suggested = line.trim_end_matches('?').rsplit(' ').next().unwrap().to_owned();
        assert!(KEYS.iter().any(|spec| spec.key == suggested), "{line}");
    }
    let line = complaint(file(&[("auth.secre", Literal::Text("x".into()), 1)]));
    assert!(line.ends_with("did you mean auth.secret?"), "{line}");
}

#[test]
fn an_error_is_one_line_whatever_is_in_key_and_path() {
    let mut layers = file(&[("a\nb", Literal::Integer(1), 1)]);
    layers.file.as_mut().unwrap().path = "x\ny.toml".into();
    let line = complaint(layers);
    assert!(line.starts_with("x\\ny.toml:1: unknown key a\\nb"), "{line}");
    assert!(!line.contains(char::is_control), "{line}");
}

#[test]
fn a_reload_takes_what_it_may_and_names_the_rest() {
    let old = resolve(Layers::default()).unwrap();
    let newer = resolve(file(&[
        ("server.workers", Literal::Integer(8), 1),
        ("log.level", Literal::Text("debug".into()), 2),
        ("server.stop_timeout", Literal::Text("30s".into()), 3),
    ]));
    let (merged, changes) = old.reloaded(&newer.unwrap());
    assert_eq!(changes.applied, ["log.level"]);
    assert_eq!(changes.needs_restart, ["server.workers"]);
    assert_eq!(merged.count("server.workers"), 0);
    assert_eq!(merged.text("log.level"), "debug");
}

proptest! {
    #[test]
    fn resolving_never_panics(key in "[a-z_.]{0,20}|server\\.(workers|listen)", value in "\\PC{0,20}") {
        let variable = format!("DUNLIN_{}", key.replace('.', "__").to_uppercase());
        let _ = resolve(environment(&variable, &value));
        let _ = resolve(flag(&key, &value));
        let _ = resolve(file(&[(&key, Literal::Text(value), 1)]));
    }
}
