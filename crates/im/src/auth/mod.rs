//! Who somebody is: the keys that tokens are signed with, tokens read and checked, tokens minted.
//!
//! - [`config`]: what `[auth]` says; pure.
//! - [`keyring`]: from key files and variables to keys, and what makes a key unfit; the only reader of
//!   files here.
//! - [`token`]: from a token's text to [`Claims`]; pure, `now` is given.
//! - [`mod@mint`]: the way back, for `dunlin token`.
//!
//! Knows no session and no protocol. Invariants: 1. Which algorithm checks a token is said by the key's
//! configuration alone. 2. No secret, and no part of a token but its `kid`, stands in an error, a log
//! line or a `Debug`.

pub mod config;
pub mod keyring;
pub mod mint;
pub mod token;

pub use config::{Algorithm, AuthConfig, AuthConfigError, KeyConfig, Mode, Secret, Source};
pub use keyring::{KeyError, Keyring};
pub use mint::{MintError, NewToken, mint};
pub use token::{Claims, TOKEN_MAX, TokenError, verify};
