//! The ledger against honest and dishonest servers, made up.

use super::*;
