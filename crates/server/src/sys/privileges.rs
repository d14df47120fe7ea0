//! Who this process is to the kernel: users, groups, and what is left of root.

use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, User};
use std::ffi::CString;
use std::fs;
use std::io;

/// A user of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) user: u32,
    /// The group it is in first of all.
    pub(crate) group: u32,
}

/// Who this process acts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) real_user: u32,
    pub(crate) effective_user: u32,
    pub(crate) effective_group: u32,
}

/// Looks an account up by its name, or else by its number.
pub(crate) fn account(name: &str) -> io::Result<Option<Account>> {
    let found = match User::from_name(name)? {
        None => {
            name.parse().ok().map(|id| User::from_uid(Uid::from_raw(id))).transpose()?.flatten()
        }
        found => found,
    };
    let account = |found: User| Account {
        name: found.name,
        user: found.uid.as_raw(),
        group: found.gid.as_raw(),
    };
    Ok(found.map(account))
}

/// Looks a group up by its name, or else by its number.
pub(crate) fn group(name: &str) -> io::Result<Option<u32>> {
    let found = match Group::from_name(name)? {
        None => {
            name.parse().ok().map(|id| Group::from_gid(Gid::from_raw(id))).transpose()?.flatten()
        }
        found => found,
    };
    Ok(found.map(|found| found.gid.as_raw()))
}

/// Who this process is.
pub(crate) fn identity() -> Identity {
    Identity {
        real_user: unistd::getuid().as_raw(),
        effective_user: unistd::geteuid().as_raw(),
        effective_group: unistd::getegid().as_raw(),
    }
}

/// Takes an account's supplementary groups, and this group, for good. Only root can.
pub(crate) fn take_groups(account: &Account, group: u32) -> io::Result<()> {
    let name = CString::new(account.name.as_str())?;
    let group = Gid::from_raw(group);
    unistd::initgroups(&name, group)?;
    Ok(unistd::setresgid(group, group, group)?)
}

/// Acts as this user until told otherwise; whoever began as root can go back.
pub(crate) fn act_as(user: u32) -> io::Result<()> {
    Ok(unistd::seteuid(Uid::from_raw(user))?)
}

/// Becomes this user for good, and proves that there is no way back.
pub(crate) fn become_for_good(user: u32, group: u32) -> io::Result<()> {
    act_as(0)?;
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    unistd::setresuid(user, user, user)?;
    let (users, groups) = (unistd::getresuid()?, unistd::getresgid()?);
    let left = |what: &str| Err(io::Error::other(format!("{what} is still there")));
    if [users.real, users.effective, users.saved] != [user; 3] {
        return left("another user's id");
    }
    if [groups.real, groups.effective, groups.saved] != [group; 3] {
        return left("another group's id");
    }
    // With the securebit NO_SETUID_FIXUP the capabilities of root outlive its id.
    if has_capabilities()? {
        return left("a capability");
    }
    match unistd::seteuid(Uid::from_raw(0)) {
        Err(Errno::EPERM) => Ok(()),
        _ => left("the way back to root"),
    }
}

/// Whether this process has any capability it could use.
fn has_capabilities() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    Ok(permitted.is_none_or(|mask| mask.trim().chars().any(|digit| digit != '0')))
}
