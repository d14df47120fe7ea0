//! Tokens made here, for `dunlin token`: who runs the server can try it without a backend.
//!
//! Invariant: what is minted here, the server of the same settings takes until it expires.

use super::config::{Algorithm, AuthConfig, KeyConfig};
use super::keyring::{self, KeyError, KeyProblem, Reader};
use super::token::ROOMS_MAX;
use crate::ids::{DeviceId, RoomId, UserId};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// What a new token shall claim.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// Who it is for.
    pub user: UserId<'a>,
    /// The only device it shall be for; any if `None`.
    pub device: Option<DeviceId<'a>>,
    /// Rooms the user belongs to.
    pub rooms: Vec<RoomId<'a>>,
    /// How long it shall hold, in seconds.
    pub ttl_s: u64,
}

/// No token was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// There is no key that can sign.
    #[error(
        "no signing key is configured: an HS256 key (auth.secret_file, auth.keys) signs by itself, \
         others need sign=FILE in auth.keys"
    )]
    NoSigningKey,
    /// There is no such key.
    #[error("auth.keys has no key {0}")]
    NoSuchKey(String),
    /// There is only its public half.
    #[error("the key {0} cannot sign: it has no sign=FILE in auth.keys")]
    CannotSign(String),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It would name more rooms than a token may.
    #[error("a token names at most {ROOMS_MAX} rooms")]
    TooManyRooms,
    /// Signing failed.
    #[error("the token was not signed: {0}")]
    Sign(jsonwebtoken::errors::Error),
}

/// Mints a token that holds from now on, by the key of this name, else by the first that can sign.
///
/// # Errors
/// See [`MintError`].
pub fn mint(
    config: &AuthConfig,
    kid: Option<&str>,
    token: &NewToken<'_>,
    unix_ms: u64,
) -> Result<String, MintError> {
    if token.rooms.len() > ROOMS_MAX {
        return Err(MintError::TooManyRooms);
    }
    let key = choose(&config.keys, kid)?;
    let signing = signing_key(key).map_err(|problem| key.error(problem))?;
    let mut header = Header::new(key.algorithm.of_jose());
    header.kid.clone_from(&key.kid);
    let now_s = unix_ms / 1_000;
    let claims = MintedClaims {
        sub: &token.user,
        iat: now_s,
        exp: now_s.saturating_add(token.ttl_s),
        iss: config.issuer.as_deref(),
        aud: config.audience.as_deref(),
        device: token.device.as_ref(),
        rooms: &token.rooms,
    };
    jsonwebtoken::encode(&header, &claims, &signing).map_err(MintError::Sign)
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a UserId<'a>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a DeviceId<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rooms: &'a [RoomId<'a>],
}

fn choose<'c>(keys: &'c [KeyConfig], kid: Option<&str>) -> Result<&'c KeyConfig, MintError> {
    let can_sign = |key: &KeyConfig| key.algorithm == Algorithm::Hs256 || key.signing.is_some();
    let Some(kid) = kid else {
        return keys.iter().find(|key| can_sign(key)).ok_or(MintError::NoSigningKey);
    };
    match keys.iter().find(|key| key.kid.as_deref() == Some(kid)) {
        None => Err(MintError::NoSuchKey(kid.to_owned())),
        Some(key) if !can_sign(key) => Err(MintError::CannotSign(kid.to_owned())),
        Some(key) => Ok(key),
    }
}

fn signing_key(key: &KeyConfig) -> Result<EncodingKey, KeyProblem> {
    let algorithm = key.algorithm;
    let Some(path) = &key.signing else {
        return Ok(EncodingKey::from_secret(&key.secret()?));
    };
    let pem = keyring::read(path, Reader::Trusted)?;
    let key = match algorithm {
        Algorithm::Rs256 => EncodingKey::from_rsa_pem(&pem),
        Algorithm::Es256 => EncodingKey::from_ec_pem(&pem),
        Algorithm::EdDsa => EncodingKey::from_ed_pem(&pem),
        // The config has refused it.
        Algorithm::Hs256 => return Err(KeyProblem::NotPrivate { algorithm }),
    };
    key.map_err(|_| KeyProblem::NotPrivate { algorithm })
}
