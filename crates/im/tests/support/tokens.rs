//! Keys in a folder of their own, and tokens of every kind, right and wrong.

use dunlin_im::auth::{Keyring, NewToken, mint};
use dunlin_im::config::ImConfig;
use dunlin_im::ids::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::settings;

/// The wall clock of a fake worker at its start, in seconds.
pub(crate) const NOW: u64 = 1_800_000_000;

/// A folder with keys.
pub(crate) struct Keys {
    dir: tempfile::TempDir,
}

pub(crate) const SECRET: &str = "b7c1d04e9f2a4c55a1f06e3d8b9c7721";

impl Keys {
    pub(crate) fn new() -> Self {
        let keys = Self { dir: tempfile::tempdir().expect("a folder") };
        keys.write("h.key", &format!("{SECRET}\n"), 0o640);
        for name in ["rs256", "es256", "eddsa"] {
            keys.write(&format!("{name}.pem"), &pem(name), 0o600);
            keys.write(&format!("{name}.pub.pem"), &pem(&format!("{name}.pub")), 0o644);
        }
        keys
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }

    /// The line of a key: `h` of HS256, `r` of RS256, `e` of ES256, `d` of EdDSA.
    pub(crate) fn line(&self, kid: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let pair = |alg, name| {
            let (public, private) =
                (path(&format!("{name}.pub.pem")), path(&format!("{name}.pem")));
            format!("kid={kid} alg={alg} file={public} sign={private}")
        };
        match kid {
            "r" => pair("RS256", "rs256"),
            "e" => pair("ES256", "es256"),
            "d" => pair("EdDSA", "eddsa"),
            _ => format!("kid={kid} alg=HS256 file={}", path(&format!("{kid}.key"))),
        }
    }

    /// `auth.keys` of these.
    pub(crate) fn lines(&self, kids: &[&str]) -> String {
        kids.iter().map(|kid| self.line(kid)).collect::<Vec<_>>().join(",")
    }

    /// Settings and keys of these words.
    pub(crate) fn load(&self, words: &[(&'static str, &str)]) -> (ImConfig, Keyring) {
        let config = ImConfig::from_settings(&settings(words)).expect("they go together");
        let keyring = Keyring::load(&config.auth.keys).expect("the keys are good");
        (config, keyring)
    }

    /// As `dunlin token` mints it.
    pub(crate) fn mint(
        &self,
        words: &[(&'static str, &str)],
        kid: Option<&str>,
        user: &str,
    ) -> String {
        let config = ImConfig::from_settings(&settings(words)).expect("they go together").auth;
        let user = UserId::new(user.to_owned()).expect("a name");
        let token = NewToken { user, device: None, rooms: vec![], ttl_s: 60 };
        mint(&config, kid, &token, NOW * 1_000).expect("a key that signs")
    }
}

/// A PEM of the repository.
pub(crate) fn pem(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/keys/{name}.pem"));
    fs::read_to_string(path).expect("the key is in the repository")
}

/// A token of these claims, signed by the secret, with this kid.
pub(crate) fn hs256(kid: Option<&str>, claims: &Value) -> String {
    signed(Algorithm::HS256, kid, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

pub(crate) fn signed(
    alg: Algorithm,
    kid: Option<&str>,
    claims: &Value,
    key: &EncodingKey,
) -> String {
    let mut header = Header::new(alg);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).expect("it can be signed")
}

/// A token of any header and claims as text, signed by the secret with HS256.
pub(crate) fn raw(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("it can be signed"))
}

/// Good claims, a minute long, with some others over them; null takes one away.
pub(crate) fn claims(other: &Value) -> Value {
    let mut claims = json!({
        "sub": "ann", "exp": NOW + 60, "iss": "https://id.example", "aud": "dunlin",
    });
    for (name, value) in other.as_object().expect("an object") {
        match value {
            Value::Null => _ = claims.as_object_mut().expect("an object").remove(name),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// URL-safe base64 without padding.
pub(crate) fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            let six = (word >> (18 - 6 * place)) & 63;
            encoded.push(char::from(ALPHABET[six as usize]));
        }
    }
    encoded
}
