//! The keys that tokens are checked with: read from their files and variables, and judged.
//!
//! Knows no token's content. Invariants: 1. A key in a [`Keyring`] can check what its algorithm signs.
//! 2. A secret in it is long, is none that everybody knows, and came from no file that everybody reads.

use super::config::{Algorithm, KeyConfig, Source};
use jsonwebtoken::{DecodingKey, Validation};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fmt};

/// Fewest bytes of an HS256 secret: as many as the hash has (RFC 7518, section 3.2).
pub const SECRET_MIN: usize = 32;
/// Most bytes of a key file.
pub const KEY_FILE_MAX: u64 = 64 << 10;

/// Fewest different bytes a secret must have: 32 random ones of any alphabet of 10 or more have more.
const DIFFERENT_BYTES_MIN: usize = 8;
/// Shortest DER of an RSA public key of 2048 bits: modulus, exponent, and their headers.
const RSA_2048_DER_BYTES: usize = 265;
/// A point of P-256, uncompressed.
const P256_POINT_BYTES: usize = 65;
const ED25519_POINT_BYTES: usize = 32;

/// Words of secrets that stand in examples everywhere. Other defaults are too short anyway.
const WELL_KNOWN: [&str; 8] = [
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long",
    "your-256-bit-secret",
    "your_jwt_secret",
    "changeme",
    "change-me",
    "change_me",
    "mysecret",
];

/// All keys of a server.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// Checks the signature by this key's algorithm, and nothing else.
    pub(super) validation: Validation,
}

/// Says which keys there are, and nothing of what is in them.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.kid, key.algorithm))).finish()
    }
}

/// A key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{origin}{}: {problem}", kid.as_ref().map(|kid| format!(", key {kid}")).unwrap_or_default())]
pub struct KeyError {
    /// Where it was written, and in which key of the config.
    pub origin: String,
    /// The key's name, if it has one.
    pub kid: Option<String>,
    /// Why not.
    pub problem: KeyProblem,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    /// Its file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a directory, a device, …
    #[error("{} is no file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Its file is no key's.
    #[error("{} is longer than {KEY_FILE_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Everybody on this machine can read or change it.
    #[error(
        "{} is open to every user of this machine (mode {mode:04o}); take that away: chmod o-rwx",
        path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Its variable is not set.
    #[error("the environment variable {name} is not set")]
    NoVariable {
        /// Which.
        name: String,
    },
    /// There is nothing in it.
    #[error("the secret is empty")]
    Empty,
    /// It can be guessed by trying.
    #[error(
        "the secret has {bytes} bytes, and at least {SECRET_MIN} are needed; `openssl rand -hex 32` \
         makes one"
    )]
    Short {
        /// How many it has.
        bytes: usize,
    },
    /// It can be guessed by knowing.
    #[error("the secret is one that stands in examples; `openssl rand -hex 32` makes one")]
    WellKnown,
    /// It is the same few bytes again and again.
    #[error(
        "the secret has fewer than {DIFFERENT_BYTES_MIN} different bytes; `openssl rand -hex 32` makes \
         one"
    )]
    Repetitive,
    /// It does not go into a header.
    #[error("the secret has other bytes than visible ASCII; `openssl rand -hex 32` makes one")]
    NotText,
    /// It is a key in PEM, as others may have.
    #[error("this is a key in PEM, not a secret; `openssl rand -hex 32` makes a secret")]
    NotSecret,
    /// It is the private key.
    #[error("this is a private key; to check tokens the server wants the public one")]
    Private,
    /// It is no key of that algorithm.
    #[error("this is no public key for {algorithm} in PEM (\"BEGIN PUBLIC KEY\")")]
    NotPublic {
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// It is no key of that algorithm.
    #[error("this is no private key for {algorithm} in PEM of PKCS#8 (\"BEGIN PRIVATE KEY\")")]
    NotPrivate {
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// An RSA key that is too short.
    #[error("the RSA key has fewer than 2048 bits")]
    ShortRsa,
}

impl Keyring {
    /// Reads the keys.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(keys: &[KeyConfig]) -> Result<Self, KeyError> {
        let keys = keys.iter().map(|key| load(key).map_err(|problem| key.error(problem)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// The key of this name. Without a name, of the keys of this algorithm, the one that has none, or the
    /// only one. `None` if there is none, or it is not clear which one is meant.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: jsonwebtoken::Algorithm,
    ) -> Option<&Key> {
        if kid.is_some() {
            return self.keys.iter().find(|key| key.kid.as_deref() == kid);
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithm.of_jose() == algorithm);
        let nameless = fitting.clone().find(|key| key.kid.is_none());
        nameless.or_else(|| fitting.next().filter(|_| fitting.next().is_none()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl KeyConfig {
    pub(crate) fn error(&self, problem: KeyProblem) -> KeyError {
        KeyError { origin: self.origin.clone(), kid: self.kid.clone(), problem }
    }

    /// The secret of an HS256 key.
    pub(crate) fn secret(&self) -> Result<Vec<u8>, KeyProblem> {
        let secret = self.source.read_secret()?;
        judge(&secret)?;
        Ok(secret)
    }
}

/// The secret in a file, which only those may read who should.
pub(crate) fn secret_in(path: &Path) -> Result<Vec<u8>, KeyProblem> {
    let secret = Source::File(path.to_owned()).read_secret()?;
    judge(&secret)?;
    Ok(secret)
}

/// Who may read a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Only who is trusted.
    Trusted,
    /// Everybody, but only who is trusted may change it.
    Anybody,
}

fn load(config: &KeyConfig) -> Result<Key, KeyProblem> {
    let algorithm = config.algorithm;
    let decoding = match algorithm {
        Algorithm::Hs256 => DecodingKey::from_secret(&config.secret()?),
        _ => public(algorithm, &config.source.read(Reader::Anybody)?)?,
    };
    let mut validation = Validation::new(algorithm.of_jose());
    // Claims are checked in `token`, by the time that is given there.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    Ok(Key { kid: config.kid.clone(), algorithm, decoding, validation })
}

fn judge(secret: &[u8]) -> Result<(), KeyProblem> {
    if secret.is_empty() {
        return Err(KeyProblem::Empty);
    }
    if secret.len() < SECRET_MIN {
        return Err(KeyProblem::Short { bytes: secret.len() });
    }
    let text = String::from_utf8_lossy(secret).to_lowercase();
    if WELL_KNOWN.iter().any(|known| text.contains(known)) {
        return Err(KeyProblem::WellKnown);
    }
    // A public key as a secret: whoever has it could make tokens.
    if text.contains("-----begin ") {
        return Err(KeyProblem::NotSecret);
    }
    let different = secret.iter().collect::<std::collections::HashSet<_>>().len();
    if different < DIFFERENT_BYTES_MIN {
        return Err(KeyProblem::Repetitive);
    }
    Ok(())
}

fn public(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, KeyProblem> {
    let not_public = || KeyProblem::NotPublic { algorithm };
    let text = std::str::from_utf8(pem).map_err(|_| not_public())?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyProblem::Private);
    }
    if !text.contains("PUBLIC KEY-----") {
        return Err(not_public());
    }
    let key = match algorithm {
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        Algorithm::Hs256 => return Err(not_public()),
    };
    let key = key.map_err(|_| not_public())?;
    let bytes = key.try_get_as_bytes().map_err(|_| not_public())?.len();
    match algorithm {
        Algorithm::Rs256 if bytes < RSA_2048_DER_BYTES => Err(KeyProblem::ShortRsa),
        Algorithm::Es256 if bytes != P256_POINT_BYTES => Err(not_public()),
        Algorithm::EdDsa if bytes != ED25519_POINT_BYTES => Err(not_public()),
        _ => Ok(key),
    }
}

impl Source {
    /// A secret of any length, without the end of its last line.
    pub(crate) fn read_secret(&self) -> Result<Vec<u8>, KeyProblem> {
        let mut secret = self.read(Reader::Trusted)?;
        // Who writes a key with an editor or `echo` ends the line; the secret is what is before.
        if secret.last() == Some(&b'\n') {
            secret.pop();
            if secret.last() == Some(&b'\r') {
                secret.pop();
            }
        }
        Ok(secret)
    }

    fn read(&self, reader: Reader) -> Result<Vec<u8>, KeyProblem> {
        match self {
            Self::File(path) => read(path, reader),
            Self::Variable(name) => env::var_os(name)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| KeyProblem::NoVariable { name: name.clone() }),
            Self::Given(secret) => Ok(secret.0.clone()),
        }
    }
}

/// Reads a key file that only those may read who should.
pub(super) fn read(path: &Path, reader: Reader) -> Result<Vec<u8>, KeyProblem> {
    let failed = |source| KeyProblem::Read { path: path.to_owned(), source };
    // Asked first: opening a FIFO would wait for whoever writes into it.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(KeyProblem::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    let forbidden = if reader == Reader::Trusted { 0o007 } else { 0o002 };
    if mode & forbidden != 0 {
        return Err(KeyProblem::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > KEY_FILE_MAX {
        return Err(KeyProblem::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_judged() {
        for good in [
            "0123456789abcdef0123456789abcdef",
            "4f1a09c5d27be8804f1a09c5d27be8804f1a09c5d27be8804f1a09c5d27be880",
            "correct horse battery staple, and 7 more",
        ] {
            assert!(judge(good.as_bytes()).is_ok(), "{good}");
        }
        let refused = |secret: &str| judge(secret.as_bytes()).unwrap_err().to_string();
        assert!(refused("").contains("empty"));
        assert!(refused("secret").contains("6 bytes"));
        assert!(refused("changeme").contains("8 bytes"));
        assert!(refused(&"x".repeat(31)).contains("31 bytes"));
        assert!(refused(&"x".repeat(32)).contains("different bytes"));
        assert!(refused(&"abcdefg".repeat(9)).contains("different bytes"));
        assert!(refused("a-string-secret-at-least-256-bits-long").contains("examples"));
        assert!(refused("ChangeMe0123456789-ChangeMe-please").contains("examples"));
    }
}
