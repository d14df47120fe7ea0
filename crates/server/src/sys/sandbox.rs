//! System calls that a process gives up for good: a filter of seccomp, which the kernel asks at each call.
//!
//! A list of what is denied and not of what is allowed: hooks of an application run here, and what they
//! call nobody can list. Denied is what no server needs and what an attacker who has taken a process over
//! needs next: starting programs, looking into other processes, becoming somebody else, namespaces and
//! mounts, the kernel's doors that have let most people through (BPF, io_uring, userfaultfd, keys).

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Gives them up, in every thread of this process and all that it starts. They fail with `EPERM`.
pub(crate) fn lock_in() -> io::Result<()> {
    // Two filters, since one knows one answer. `clone3` hides its flags from filters: who asks for it is
    // told that there is none, and asks for `clone`.
    let programs = [
        program(denied()?, libc::EPERM),
        program([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS),
    ];
    for program in programs {
        let program = program.map_err(io::Error::other)?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| match error {
            Error::Prctl(source) | Error::Seccomp(source) => source,
            other => io::Error::other(other),
        })?;
    }
    Ok(())
}

/// Whether a process has given up more than this one: filters stay with all that is started from a process.
/// One that is gone counts as one that has.
pub(crate) fn is_locked_in(pid: i32) -> bool {
    match (filters(&pid.to_string()), filters("self")) {
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => true,
    }
}

/// How many filters a process has; 0 where the kernel does not tell.
fn filters(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    Some(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, answer, machine)?.try_into()
}

fn denied() -> io::Result<Rules> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, any_of(&NAMESPACES).map_err(io::Error::other)?);
    #[cfg(target_arch = "x86_64")]
    rules.extend(x86::calls().map(|call| (call, Vec::new())));
    Ok(rules)
}

/// A call whose first argument has any of these bits.
fn any_of(bits: &[i32]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let has = |bit: &i32| {
        let bit = u64::from(bit.unsigned_abs());
        let masked = SeccompCmpOp::MaskedEq(bit);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, masked, bit)?])
    };
    bits.iter().map(has).collect()
}

/// Kinds of namespaces that `clone` makes.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Denied whatever their arguments.
#[rustfmt::skip]
const ALWAYS: [i64; 66] = [
    // Starting programs.
    libc::SYS_execve, libc::SYS_execveat,
    // Looking into other processes, taking what they have.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd,
    libc::SYS_kcmp, libc::SYS_process_madvise, libc::SYS_migrate_pages, libc::SYS_move_pages,
    // Becoming somebody else.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset,
    // Other worlds.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_chroot, libc::SYS_pivot_root, libc::SYS_mount,
    libc::SYS_umount2, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig,
    libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_personality,
    libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_kexec_file_load,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_syslog, libc::SYS_acct,
    libc::SYS_quotactl, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init, libc::SYS_vhangup,
    // The machine's clock and names.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_mknodat,
];

#[cfg(target_arch = "x86_64")]
mod x86 {
    /// Set in the numbers of the x32 calls, which come as calls of this machine.
    const X32: i64 = 0x4000_0000;
    /// x32 has numbers of its own for these: execve, ptrace, `process_vm_readv` and `_writev`,
    /// `kexec_load`, execveat.
    const OF_X32: [i64; 6] = [520, 521, 539, 540, 528, 545];

    /// What only this machine has, and what else its calls are named.
    pub(super) fn calls() -> impl Iterator<Item = i64> {
        let own = [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_mknod];
        let in_x32 = super::ALWAYS.into_iter().chain(OF_X32).map(|call| call | X32);
        own.into_iter().chain(in_x32)
    }
}
