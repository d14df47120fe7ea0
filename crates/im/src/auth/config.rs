//! What `[auth]` says, typed: the mode, the keys, and what tokens must claim.
//!
//! Reads no file and no variable: a key is named here, and loaded by [`super::keyring`]. Invariant: no
//! error shows a value of a key's line, since somebody may have written the secret itself there.

use crate::ids::{IdError, check_name};
use dunlin_server::settings::{Origin, Settings};
use std::fmt;
use std::path::PathBuf;

/// Most keys there may be at once.
pub const KEYS_MAX: usize = 32;

/// What `[auth]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// Who may log in.
    pub mode: Mode,
    /// The keys, in the order they are written; the first that can sign mints.
    pub keys: Vec<KeyConfig>,
    /// What `iss` must be; `None` for anything.
    pub issuer: Option<String>,
    /// What `aud` must be or have; `None`: a token for an audience is refused.
    pub audience: Option<String>,
    /// How far the clock of who minted a token may be from ours, in milliseconds.
    pub leeway_ms: u64,
    /// How long after its token's end a session may still refresh it, in milliseconds.
    pub expiry_grace_ms: u64,
    /// Tokens refused on one connection before it is closed.
    pub max_failures: u64,
}

/// Who may log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Anybody as anybody.
    Open,
    /// Who has a token.
    Token,
}

impl Mode {
    /// As the config writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Token => "token",
        }
    }
}

/// A key as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// Its name in the header of tokens; `None` for that of `auth.secret_file` or `auth.secret`.
    pub kid: Option<String>,
    /// What it signs by.
    pub algorithm: Algorithm,
    /// Where the secret or the public key is.
    pub source: Source,
    /// Where the private key is that mints tokens, where it is not the secret itself.
    pub signing: Option<PathBuf>,
    /// Where it was written, and in which key of the config: `dunlin.toml:7: auth.keys`.
    pub origin: String,
}

/// Where a secret or a public key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An environment variable of this name.
    Variable(String),
    /// Here.
    Given(Secret),
}

/// Bytes that nobody may see.
#[derive(Clone, Eq)]
pub struct Secret(pub(crate) Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Takes the same time for any two secrets of one length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == other.0.len() && std::hint::black_box(differences) == 0
    }
}

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and checks.
    Hs256,
    /// RSA PKCS#1 v1.5 with SHA-256, at least 2048 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    const ALL: [(&'static str, Self); 4] = [
        ("HS256", Self::Hs256),
        ("RS256", Self::Rs256),
        ("ES256", Self::Es256),
        ("EdDSA", Self::EdDsa),
    ];

    pub(super) fn of_jose(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Its name in JOSE.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::ALL.iter().find(|(_, algorithm)| algorithm == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

/// `[auth]` does not go together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// A key's line does not say what a key is.
    #[error(
        "{origin}: key {number} {problem}; a key is written \
         \"kid=2026-a alg=HS256 file=/etc/dunlin/2026-a.key\""
    )]
    KeyLine {
        /// Where it was written.
        origin: String,
        /// Which of the list, from 1.
        number: usize,
        /// What is wrong with it.
        problem: KeyLineError,
    },
    /// There are too many keys.
    #[error("{origin}: {got} keys are more than the {KEYS_MAX} there may be")]
    TooManyKeys {
        /// Where they were written.
        origin: String,
        /// How many.
        got: usize,
    },
    /// Tokens are asked for, and nothing to check them with is there.
    #[error(
        "{origin}: auth.mode = \"token\" needs a key: set auth.secret_file or auth.keys, or the \
         secret in the variable DUNLIN_AUTH__SECRET"
    )]
    NoKey {
        /// Where it was written.
        origin: String,
    },
    /// The secret stands in the config file.
    #[error(
        "{origin}: auth.secret is taken from the environment only (DUNLIN_AUTH__SECRET); put it into a \
         file of its own and name that by auth.secret_file"
    )]
    SecretInFile {
        /// Where.
        origin: String,
    },
    /// Two secrets are given.
    #[error("{origin}: auth.secret and auth.secret_file are both set; take one")]
    TwoSecrets {
        /// Where the first of them stands.
        origin: String,
    },
}

/// What is wrong with a key's line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyLineError {
    /// A word that says nothing.
    #[error("has a word that is not NAME=VALUE")]
    BadWord,
    /// A name nobody reads.
    #[error("has a word that begins neither with kid=, alg=, file=, env= nor sign=")]
    UnknownName,
    /// A name that stands twice, or both of two of which one is wanted.
    #[error("says twice what {0} is")]
    Twice(&'static str),
    /// Something is missing.
    #[error("has no {0}")]
    Missing(&'static str),
    /// The kid is no name.
    #[error("has a kid that {0}")]
    BadKid(#[from] IdError),
    /// Another key has the same kid.
    #[error("has the kid of a key before it")]
    SameKid,
    /// The algorithm is not one of ours.
    #[error("has an alg that is none of HS256, RS256, ES256 and EdDSA")]
    BadAlgorithm,
    /// HS256 with a private key.
    #[error("has a sign=, but HS256 signs with its secret")]
    NothingToSignWith,
}

impl AuthConfig {
    /// The typed form of resolved settings.
    ///
    /// # Errors
    /// See [`AuthConfigError`].
    pub fn from_settings(settings: &Settings) -> Result<Self, AuthConfigError> {
        let mode = if settings.text("auth.mode") == "token" { Mode::Token } else { Mode::Open };
        let mut keys = listed(settings)?;
        keys.extend(single(settings)?);
        if mode == Mode::Token && keys.is_empty() {
            let origin = settings.origin("auth.mode").to_string();
            return Err(AuthConfigError::NoKey { origin });
        }
        let wanted = |key| Some(settings.text(key).to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            mode,
            keys,
            issuer: wanted("auth.issuer"),
            audience: wanted("auth.audience"),
            leeway_ms: settings.duration_ms("auth.leeway"),
            expiry_grace_ms: settings.duration_ms("auth.expiry_grace"),
            max_failures: settings.count("auth.max_failures"),
        })
    }
}

/// The keys of `auth.keys`.
fn listed(settings: &Settings) -> Result<Vec<KeyConfig>, AuthConfigError> {
    let origin = format!("{}: auth.keys", settings.origin("auth.keys"));
    let lines = settings.list("auth.keys");
    if lines.len() > KEYS_MAX {
        return Err(AuthConfigError::TooManyKeys { origin, got: lines.len() });
    }
    let mut keys: Vec<KeyConfig> = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let key = key(line, &origin)
            .and_then(|key| match keys.iter().any(|known| known.kid == key.kid) {
                true => Err(KeyLineError::SameKid),
                false => Ok(key),
            })
            .map_err(|problem| AuthConfigError::KeyLine {
                origin: origin.clone(),
                number: place + 1,
                problem,
            })?;
        keys.push(key);
    }
    Ok(keys)
}

fn key(line: &str, origin: &str) -> Result<KeyConfig, KeyLineError> {
    const NAMES: [&str; 5] = ["kid", "alg", "file", "env", "sign"];
    let mut values: [Option<&str>; 5] = [None; 5];
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').ok_or(KeyLineError::BadWord)?;
        let place = NAMES.iter().position(|known| *known == name);
        let place = place.ok_or(KeyLineError::UnknownName)?;
        if value.is_empty() {
            return Err(KeyLineError::Missing(NAMES[place]));
        }
        if values[place].replace(value).is_some() {
            return Err(KeyLineError::Twice(NAMES[place]));
        }
    }
    let [kid, algorithm, file, variable, signing] = values;
    let kid = kid.ok_or(KeyLineError::Missing("kid"))?;
    check_name(kid)?;
    let algorithm = algorithm.ok_or(KeyLineError::Missing("alg"))?;
    let algorithm = Algorithm::ALL.iter().find(|(name, _)| *name == algorithm);
    let (_, algorithm) = *algorithm.ok_or(KeyLineError::BadAlgorithm)?;
    if signing.is_some() && algorithm == Algorithm::Hs256 {
        return Err(KeyLineError::NothingToSignWith);
    }
    let source = match (file, variable) {
        (Some(path), None) => Source::File(path.into()),
        (None, Some(name)) => Source::Variable(name.to_owned()),
        (None, None) => return Err(KeyLineError::Missing("file")),
        (Some(_), Some(_)) => return Err(KeyLineError::Twice("file")),
    };
    let signing = signing.map(PathBuf::from);
    Ok(KeyConfig {
        kid: Some(kid.to_owned()),
        algorithm,
        source,
        signing,
        origin: origin.to_owned(),
    })
}

/// The key of `auth.secret_file` or `auth.secret`, if there is one.
fn single(settings: &Settings) -> Result<Option<KeyConfig>, AuthConfigError> {
    let origin = settings.origin("auth.secret");
    let secret = settings.text("auth.secret");
    let given = match origin {
        Origin::Default => None,
        Origin::File { .. } if secret.is_empty() => None,
        Origin::File { .. } => {
            return Err(AuthConfigError::SecretInFile { origin: origin.to_string() });
        }
        // Empty, too: who sets the variable to nothing has made a mistake, and is told.
        Origin::Environment(_) | Origin::Flag(_) => Some(Secret(secret.as_bytes().to_vec())),
    };
    let (source, origin) = match (given, settings.path("auth.secret_file")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(AuthConfigError::TwoSecrets { origin: origin.to_string() });
        }
        (Some(secret), None) => (Source::Given(secret), format!("{origin}: auth.secret")),
        (None, Some(path)) => {
            let origin = settings.origin("auth.secret_file");
            (Source::File(path.to_owned()), format!("{origin}: auth.secret_file"))
        }
    };
    let algorithm = Algorithm::Hs256;
    Ok(Some(KeyConfig { kid: None, algorithm, source, signing: None, origin }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_line_of_words() {
        let read = |line: &str| key(line, "f:1: auth.keys").unwrap();
        let hmac = read("kid=a alg=HS256 file=/k");
        assert_eq!((hmac.kid.as_deref(), hmac.algorithm), (Some("a"), Algorithm::Hs256));
        assert_eq!((hmac.source, hmac.signing), (Source::File("/k".into()), None));
        let pair = read("  sign=p.pem\tenv=PUBLIC alg=EdDSA  kid=x=y ");
        assert_eq!((pair.kid.as_deref(), pair.algorithm), (Some("x=y"), Algorithm::EdDsa));
        assert_eq!(pair.source, Source::Variable("PUBLIC".into()));
        assert_eq!(pair.signing, Some("p.pem".into()));
        for (name, algorithm) in Algorithm::ALL {
            assert_eq!(algorithm.to_string(), name);
            assert_eq!(read(&format!("kid=a alg={name} file=f")).algorithm, algorithm);
        }
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong_and_shows_no_value() {
        for (line, problem) in [
            ("", KeyLineError::Missing("kid")),
            ("kid=a", KeyLineError::Missing("alg")),
            ("kid= alg=HS256 file=f", KeyLineError::Missing("kid")),
            ("kid=a alg=HS256", KeyLineError::Missing("file")),
            ("kid=a alg=HS256 file=f env=E", KeyLineError::Twice("file")),
            ("kid=a kid=b alg=HS256 file=f", KeyLineError::Twice("kid")),
            ("kid=a alg=none file=f", KeyLineError::BadAlgorithm),
            ("kid=a alg=hs256 file=f", KeyLineError::BadAlgorithm),
            ("kid=a alg=HS512 file=f", KeyLineError::BadAlgorithm),
            ("kid=a alg=HS256 file=f sign=g", KeyLineError::NothingToSignWith),
            ("kid=a alg=HS256 secret=hush", KeyLineError::UnknownName),
            ("kid=a alg=HS256 hush", KeyLineError::BadWord),
            ("kid=a alg=HS256 file=my key", KeyLineError::BadWord),
        ] {
            assert_eq!(key(line, "").unwrap_err(), problem, "{line}");
            assert!(!problem.to_string().contains("hush"), "{problem}");
        }
        let long = format!("kid={} alg=HS256 file=f", "x".repeat(65));
        assert_eq!(key(&long, "").unwrap_err(), KeyLineError::BadKid(IdError::TooLong));
    }

    #[test]
    fn secrets_are_compared_whole_and_never_shown() {
        let secret = |text: &str| Secret(text.into());
        assert_eq!(secret("abc"), secret("abc"));
        for other in ["abd", "ab", "abcd", "", "xbc"] {
            assert_ne!(secret("abc"), secret(other));
        }
        assert_eq!(format!("{:?}", Source::Given(secret("abc"))), "Given(***)");
    }
}
