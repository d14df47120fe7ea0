//! The limit on descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the limit on descriptors to the highest this process may have; gives what it was and what it
/// is.
pub(crate) fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok((soft, hard))
}

/// Holds the limit on descriptors, up to the highest, at a number.
pub(crate) fn hold_descriptor_limit(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?;
    Ok(())
}

/// The limit on descriptors as it is.
pub(crate) fn descriptor_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}
