//! Settings as flags and variables give them, one `KEY=VALUE` a line: any text is taken or refused with a
//! sentence, and what is shown of a setting reads back as the same.
#![no_main]

use dunlin_im::{IM_KEYS, ImConfig};
use dunlin_server::{
    config::{Config, SERVER_KEYS},
    settings::{Layers, Literal, Settings, Value},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut layers = Layers::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        layers.flag_words(key.trim(), value, "--set");
    }
    match Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers) {
        Ok(settings) => check(settings),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(settings: Settings) {
    for setting in settings.iter() {
        let shown = setting.shown();
        if shown != "***" {
            let again = Value::read(&setting.spec.kind, &Literal::from_words(&shown));
            assert_eq!(again.ok().as_ref(), Some(&setting.value), "{}={shown}", setting.spec.key);
        }
    }
    let changes = settings.diff(&settings);
    assert!(changes.applied.is_empty() && changes.needs_restart.is_empty());
    if let Err(error) = ImConfig::from_settings(&settings) {
        assert!(!error.to_string().is_empty());
    }
    match Config::from_settings(settings) {
        Ok(config) => assert!(!config.listen.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
