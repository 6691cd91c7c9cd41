//! What the process of a repository's program takes from itself before it begins it.
//!
//! It is its own process because what is taken can never be had back: the file system but for a few folders (a root
//! of its own, and Landlock), the network, unless it is granted, and the other processes (namespaces of its own), memory and file sizes
//! (limits of the system).

use std::io;
use std::path::Path;

/// How a process ends that did not begin its program.
pub const NOT_BEGUN: u8 = 125;
/// How the line on standard error begins that says why a program did not begin.
pub const REFUSED: &str = "hydromesh does not begin it: ";

/// Where a program finds its product's files, where it begins.
pub const PRODUCT: &str = "/work/product";
/// Where it finds the rows that it is shown.
pub const ROWS: &str = "/work/rows";
/// Where it may write.
pub const OWN: &str = "/work/own";
/// Where it finds a model, if it is shown one.
pub const MODEL: &str = "/work/model";

/// Which network a program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// One of its own, with nobody in it.
    None,
    /// That of the machine.
    Machine,
}

/// Where programs and what they are made of lie, to be read and run.
#[cfg(target_os = "linux")]
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt"];
/// What programs look up of the machine. Nothing here is a secret.
#[cfg(target_os = "linux")]
const LOOKED_UP: [&str; 10] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/dev/urandom",
    "/dev/zero",
];
/// What looking up names and speaking TLS takes besides. Folders of private keys are left out.
#[cfg(target_os = "linux")]
const LOOKED_UP_OF_NETWORKS: [&str; 12] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
];
/// The largest file that it may write.
#[cfg(target_os = "linux")]
const FILE_BYTES: u64 = 1 << 30;

/// Confines this process and what it will begin to a folder, for ever. It must have one thread alone. Afterwards the folder's parts are at
/// [`PRODUCT`], where this process is, [`ROWS`], [`MODEL`] and [`OWN`].
///
/// # Errors
/// When the system cannot do any part of it. Then nothing may begin.
#[cfg(target_os = "linux")]
pub fn confine(folder: &Path, memory_bytes: u64, network: Network) -> io::Result<()> {
    use crate::confine::{bound, end_with_parent};

    bound(libc::RLIMIT_DATA, memory_bytes)?;
    bound(libc::RLIMIT_CORE, 0)?;
    bound(libc::RLIMIT_FSIZE, FILE_BYTES)?;
    alone(network)?;
    rooted(folder, network)?;
    locked(network)?;
    end_with_parent()
}

/// Returns what a program looks up of the machine.
#[cfg(target_os = "linux")]
fn looked_up(network: Network) -> impl Iterator<Item = &'static str> {
    let besides: &[&str] = match network {
        Network::None => &[],
        Network::Machine => &LOOKED_UP_OF_NETWORKS,
    };
    LOOKED_UP.iter().chain(besides).copied()
}

/// Leaves the network, unless it is granted, and the processes, the shared memory and the mounts of others.
#[cfg(target_os = "linux")]
fn alone(network: Network) -> io::Result<()> {
    // SAFETY: both take plain numbers and touch no memory of ours.
    #[expect(unsafe_code, reason = "no crate of the set has a safe unshare")]
    let (user, group, failed) = unsafe {
        let net = match network {
            Network::None => libc::CLONE_NEWNET,
            Network::Machine => 0,
        };
        let apart = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWNS | net;
        (libc::geteuid(), libc::getegid(), libc::unshare(apart) != 0)
    };
    if failed {
        let why = io::Error::last_os_error();
        let text = format!("it cannot be taken off the machine (user namespaces): {why}");
        return Err(io::Error::new(why.kind(), text));
    }
    // It stays who it is, and nobody more.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Gives this process a root with nothing in it but the folder's parts and what programs are made of. So there is no socket that it could
/// speak to, which locked files would not keep it from.
#[cfg(target_os = "linux")]
fn rooted(folder: &Path, network: Network) -> io::Result<()> {
    use std::os::unix::fs::symlink;

    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
    let root = folder.join("root");
    std::fs::create_dir_all(&root)?;
    mount(Some(Path::new("tmpfs")), &root, Some("tmpfs"), libc::MS_NOSUID)?;
    let parts = [("product", PRODUCT), ("rows", ROWS), ("own", OWN), ("model", MODEL)];
    let parts = parts.map(|(part, at)| (folder.join(part), Path::new(at)));
    let looked_up = looked_up(network).chain(["/dev/null"]);
    // Who looks after names and certificates often keeps them where a program sees nothing, such as below /run.
    let found = |path: &'static str| {
        if LOOKED_UP_OF_NETWORKS.contains(&path) {
            std::fs::canonicalize(path).ok()
        } else {
            Some(path.into())
        }
    };
    let machine =
        PROGRAMS.into_iter().chain(looked_up).filter_map(|path| Some((found(path)?, Path::new(path))));
    for (from, at) in machine.chain(parts) {
        let to = root.join(at.strip_prefix("/").unwrap_or(at));
        // What this machine does not have the program does not have either.
        let Ok(about) = std::fs::symlink_metadata(&from) else { continue };
        to.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        if about.is_symlink() {
            symlink(std::fs::read_link(&from)?, &to)?;
            continue;
        }
        if about.is_dir() {
            std::fs::create_dir(&to)?;
        } else {
            std::fs::write(&to, "")?;
        }
        mount(Some(&from), &to, None, libc::MS_BIND | libc::MS_REC)?;
    }
    std::env::set_current_dir(&root)?;
    // SAFETY: both take constant texts that end with 0 and touch no memory of ours.
    #[expect(unsafe_code, reason = "no crate of the set has a safe pivot_root")]
    let failed = unsafe {
        let here = c".".as_ptr();
        libc::syscall(libc::SYS_pivot_root, here, here) != 0 || libc::umount2(here, libc::MNT_DETACH) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    std::env::set_current_dir(PRODUCT)
}

#[cfg(target_os = "linux")]
fn mount(from: Option<&Path>, to: &Path, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;

    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (from, to) = (from.map(text).transpose()?, text(to)?);
    let kind = kind.map(|kind| CString::new(kind).map_err(io::Error::other)).transpose()?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null or to a text that ends with 0 and lives until the call returns.
    #[expect(unsafe_code, reason = "no crate of the set has a safe mount")]
    let failed =
        unsafe { libc::mount(pointer(&from), to.as_ptr(), pointer(&kind), flags, std::ptr::null()) != 0 };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Locks what is to be read only, whatever the rights of its files say.
#[cfg(target_os = "linux")]
fn locked(network: Network) -> io::Result<()> {
    use landlock::{
        ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
        RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    };

    // The first one that also decides about cutting files (Linux 6.2).
    let abi = ABI::V3;
    let refused = |error: landlock::RulesetError| {
        io::Error::other(format!("its files cannot be locked (Landlock): {error}"))
    };
    let read = AccessFs::from_read(abi);
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    // A file has fewer rights than a folder.
    let mut ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let own = [(PRODUCT, read), (ROWS, look), (MODEL, look), (OWN, AccessFs::from_all(abi))];
    let programs = PROGRAMS.map(|path| (path, read));
    let looked_up = looked_up(network).map(|path| (path, look));
    let null = [("/dev/null", look | AccessFs::WriteFile)];
    for (path, access) in own.into_iter().chain(programs).chain(looked_up).chain(null) {
        let Ok(opened) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access)).map_err(refused)?;
    }
    let status = ruleset.restrict_self().map_err(refused)?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(io::Error::other("its files cannot be locked: this system has no Landlock"));
    }
    Ok(())
}

/// Elsewhere no system confines it.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn confine(_: &Path, _: u64, _: Network) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
