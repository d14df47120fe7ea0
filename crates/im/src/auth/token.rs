//! From the text of a token to what it claims, once its signature and all it must claim are right.
//!
//! Pure: keys, rules and the time are given. Invariants: 1. No text panics. 2. No claim is looked at
//! before the signature was checked, and whether a token has expired only when all else is right: who
//! cannot sign learns nothing.

use super::config::AuthConfig;
use super::keyring::Keyring;
use crate::ids::{DeviceId, IdError, RoomId, UserId};
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde_json::Number;

/// Longest token taken, in bytes.
pub const TOKEN_MAX: usize = 8 << 10;
/// Most rooms a token may name: as many as a session can be in.
pub const ROOMS_MAX: usize = crate::tables::rooms::ROOMS_BOUND;
/// Longest `name`, in bytes.
pub const NAME_CLAIM_MAX: usize = 128;

/// What a right token claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// `sub`: who it is.
    pub user: UserId<'static>,
    /// `device`: the only device it is for, if it names one.
    pub device: Option<DeviceId<'static>>,
    /// `name`: the user's name for people.
    pub name: Option<String>,
    /// `rooms`: the rooms that the session joins, and may join; any if it does not say.
    pub rooms: Option<Vec<RoomId<'static>>>,
    /// `exp`, Unix milliseconds.
    pub expires_ms: u64,
}

/// Why a token is refused: for the log. A client is told only whether it has expired.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It is no token.
    #[error("it is no signed token of an algorithm that is served")]
    Malformed,
    /// It wants something understood that nobody here understands.
    #[error("its header has a crit, and no extension is served")]
    Critical,
    /// No key has its name.
    #[error("there is no key of its kid {0:?}")]
    UnknownKey(String),
    /// It names no key, and it is not clear which one is meant.
    #[error("it has no kid, and not exactly one key has its algorithm")]
    NoSingleKey,
    /// Its header names another algorithm than its key has.
    #[error("its algorithm is not that of its key")]
    WrongAlgorithm,
    /// The key did not sign it.
    #[error("its signature is wrong")]
    WrongSignature,
    /// A claim is of another type, stands twice, or the claims are no JSON object.
    #[error("its claims are not of the types they must be")]
    WrongTypes,
    /// A claim that must be there is not.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// `exp` or `nbf` is no time.
    #[error("its {0} is no time")]
    NoTime(&'static str),
    /// Another issuer.
    #[error("its iss is not auth.issuer")]
    WrongIssuer,
    /// Another audience, or any where none is configured.
    #[error("its aud is not auth.audience")]
    WrongAudience,
    /// `sub`, `device`, `name` or a room is no name.
    #[error("its {0} {1}")]
    BadName(&'static str, IdError),
    /// `name` is too long.
    #[error("its name has more than {NAME_CLAIM_MAX} bytes")]
    LongName,
    /// Too many rooms.
    #[error("it names more than {ROOMS_MAX} rooms")]
    TooManyRooms,
    /// It holds from later on.
    #[error("it is not valid yet")]
    NotYet,
    /// It held until a while ago.
    #[error("it has expired")]
    Expired,
}

/// Reads a token, and checks all that can be checked without knowing who brings it.
///
/// # Errors
/// See [`TokenError`].
pub fn verify(
    keyring: &Keyring,
    config: &AuthConfig,
    token: &str,
    unix_ms: u64,
) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    let Some(key) = keyring.find(header.kid.as_deref(), header.alg) else {
        return Err(header.kid.map_or(TokenError::NoSingleKey, |mut kid| {
            kid.truncate(kid.floor_char_boundary(SHOWN_KID_MAX));
            TokenError::UnknownKey(kid)
        }));
    };
    if key.algorithm.of_jose() != header.alg {
        return Err(TokenError::WrongAlgorithm);
    }
    let data = jsonwebtoken::decode::<RawClaims>(token, &key.decoding, &key.validation);
    let raw = data.map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::WrongSignature,
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => TokenError::WrongTypes,
        _ => TokenError::Malformed,
    })?;
    raw.claims.check(config, unix_ms)
}

/// Most bytes of an unknown kid in a log line.
const SHOWN_KID_MAX: usize = 64;

/// Claims as they are written. A claim that stands twice is an error, others are ignored.
#[derive(Deserialize)]
struct RawClaims {
    sub: Option<String>,
    exp: Option<Number>,
    nbf: Option<Number>,
    iss: Option<String>,
    aud: Option<Audience>,
    device: Option<String>,
    name: Option<String>,
    rooms: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl RawClaims {
    fn check(self, config: &AuthConfig, unix_ms: u64) -> Result<Claims, TokenError> {
        let wrong = |claim| move |error| TokenError::BadName(claim, error);
        let user = self.sub.ok_or(TokenError::Missing("sub"))?;
        let user = UserId::new(user).map_err(wrong("sub"))?;
        let device = self.device.map(DeviceId::new).transpose().map_err(wrong("device"))?;
        if let Some(name) = &self.name {
            check_name_claim(name)?;
        }
        let rooms = self.rooms.map(|rooms| {
            if rooms.len() > ROOMS_MAX {
                return Err(TokenError::TooManyRooms);
            }
            let rooms = rooms.into_iter().map(RoomId::new).collect::<Result<_, _>>();
            rooms.map_err(wrong("rooms"))
        });
        let rooms = rooms.transpose()?;
        if config.issuer.is_some() && self.iss != config.issuer {
            return Err(TokenError::WrongIssuer);
        }
        if !is_for(self.aud.as_ref(), config.audience.as_deref()) {
            return Err(TokenError::WrongAudience);
        }
        let expires_ms = time(&self.exp.ok_or(TokenError::Missing("exp"))?, "exp")?;
        let begins_ms = self.nbf.map_or(Ok(0), |nbf| time(&nbf, "nbf"))?;
        if begins_ms > unix_ms.saturating_add(config.leeway_ms) {
            return Err(TokenError::NotYet);
        }
        if expires_ms.saturating_add(config.leeway_ms) <= unix_ms {
            return Err(TokenError::Expired);
        }
        Ok(Claims { user, device, name: self.name, rooms, expires_ms })
    }
}

/// Whether a token for these is for us; one for somebody else never is (RFC 7519, section 4.1.3).
fn is_for(audience: Option<&Audience>, own: Option<&str>) -> bool {
    match (audience, own) {
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
        (Some(Audience::One(one)), Some(own)) => one == own,
        (Some(Audience::Several(several)), Some(own)) => several.iter().any(|one| one == own),
    }
}

/// As other names, but longer: it is for people.
fn check_name_claim(name: &str) -> Result<(), TokenError> {
    let wrong = |error| Err(TokenError::BadName("name", error));
    if name.len() > NAME_CLAIM_MAX {
        return Err(TokenError::LongName);
    }
    if name.is_empty() {
        return wrong(IdError::Empty);
    }
    if name.chars().any(char::is_control) {
        return wrong(IdError::ControlCharacter);
    }
    Ok(())
}

/// The end of the year 9999, Unix milliseconds: what is later is as good as never.
const TIME_MAX_MS: u64 = 253_402_300_799_999;

/// A NumericDate: Unix seconds, with or without a fraction; as milliseconds.
fn time(number: &Number, claim: &'static str) -> Result<u64, TokenError> {
    if let Some(seconds) = number.as_u64() {
        return Ok(seconds.saturating_mul(1_000).min(TIME_MAX_MS));
    }
    let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0);
    let ms = seconds.ok_or(TokenError::NoTime(claim))? * 1_000.0;
    if ms >= 253_402_300_799_999.0 {
        return Ok(TIME_MAX_MS);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to TIME_MAX_MS, as was just checked"
    )]
    Ok(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_or_without_a_fraction() {
        let read = |text: &str| time(&serde_json::from_str(text).unwrap(), "exp");
        assert_eq!(read("0"), Ok(0));
        assert_eq!(read("1800000000"), Ok(1_800_000_000_000));
        assert_eq!(read("1800000000.25"), Ok(1_800_000_000_250));
        assert_eq!(read("1e300"), Ok(TIME_MAX_MS));
        assert_eq!(read("18446744073709551615"), Ok(TIME_MAX_MS));
        assert_eq!(read("-1"), Err(TokenError::NoTime("exp")));
        assert_eq!(read("-0.5"), Err(TokenError::NoTime("exp")));
    }

    #[test]
    fn a_token_for_somebody_else_is_not_for_us() {
        let one = Audience::One("a".into());
        let several = Audience::Several(vec!["b".into(), "a".into()]);
        let none = Audience::Several(vec![]);
        assert!(is_for(None, None) && is_for(Some(&one), Some("a")));
        assert!(is_for(Some(&several), Some("a")) && !is_for(Some(&several), Some("c")));
        assert!(
            !is_for(None, Some("a")) && !is_for(Some(&one), None) && !is_for(Some(&none), None)
        );
    }

    #[test]
    fn a_name_for_people_has_at_most_128_bytes() {
        for good in
            ["A", "Ann of the very long name that has more than sixty-four bytes in all, really"]
        {
            assert_eq!(check_name_claim(good), Ok(()));
        }
        assert_eq!(check_name_claim(&"x".repeat(129)), Err(TokenError::LongName));
        for (wrong, error) in [
            (String::new(), IdError::Empty),
            ("a\nb".into(), IdError::ControlCharacter),
            (format!("{}\n", "x".repeat(80)), IdError::ControlCharacter),
        ] {
            assert_eq!(check_name_claim(&wrong), Err(TokenError::BadName("name", error)));
        }
    }
}
