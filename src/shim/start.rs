//! `start`: finds the shim of a container's group, or starts one, and prints its address.
//!
//! All starts of a host look for the socket one after the other: two starts for one pod must find one shim, and a
//! stale socket must not be removed while another start replaces it. The server inherits the listener, so a client
//! that reads the address can connect at once.
//!
//! ```text
//! containerd --start--> lock, look for socket --none--> listen, spawn server --> print address
//!                             `------found------------------------------------------^
//! ```

use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};

use super::bootstrap::StartRequest;
use super::command::environment;
use super::console;
use super::flags::Flags;
use super::model::Config;
use super::options::Options;
use super::print;
use super::status::Status;
use super::ttrpc::{Call, REQUEST, frame};
use crate::cgroup::layout;
use crate::error::{Context, Error, OsContext, Result};
use crate::fs::record;
use crate::path::c_path;
use crate::sys::process::Vector;
use crate::sys::spawn::{Image, SpawnOptions, spawn_with};
use std::os::fd::AsRawFd;

/// Directory of all sockets of containerd's shims.
const SOCKETS: &str = "/run/containerd/s";
const ADDRESS: &str = "address";

/// Runs the action `start`.
///
/// # Errors
///
/// The options are invalid, or the server cannot be started.
#[expect(clippy::disallowed_methods, reason = "a parameter that containerd passes")]
pub fn start(flags: &Flags) -> std::result::Result<(), Status> {
    const LIMIT: u64 = 4 << 20;
    let mut stdin = Vec::new();
    std::io::stdin().take(LIMIT).read_to_end(&mut stdin).os("read", "stdin")?;
    let grpc = std::env::var_os("GRPC_ADDRESS").is_some();
    let asked = StartRequest::parse(&stdin, flags, grpc)?;
    let options = asked.options.as_ref().map(Options::decode).transpose()?.unwrap_or_default();
    let bundle = std::env::current_dir().os("getcwd", "")?;
    let path = address(&asked.socket_dir, flags, &bundle);
    serve(flags, &options, &bundle, &path)?;
    let address = format!("unix://{}", path.display());
    // A daemon before 1.7 reads the address there when it returns.
    record::write(&bundle.join(ADDRESS), 0o600, address.as_bytes())?;
    let answer = asked.answer(&address);
    print(&answer)
}

/// Reads the answer of `start` for this bundle.
pub fn stored_address(bundle: &Path) -> Option<PathBuf> {
    let address = record::read(&bundle.join(ADDRESS), 4096).ok()?;
    str::from_utf8(&address).ok()?.strip_prefix("unix://").map(PathBuf::from)
}

/// Returns the socket of the shim that serves a container's group.
pub fn address(socket_dir: &str, flags: &Flags, bundle: &Path) -> PathBuf {
    let config = Config::read(bundle);
    let group = config.group().unwrap_or(&flags.id);
    let dir = if socket_dir.is_empty() { SOCKETS } else { socket_dir };
    let name = digest(&[&flags.address, &flags.namespace, group]);
    Path::new(dir).join(format!("{name:032x}"))
}

/// Computes FNV-1a with 128 bits, which separates the groups of a host, and is the same in every release.
fn digest(parts: &[&str]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

fn serve(flags: &Flags, options: &Options, bundle: &Path, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o711).create(dir).os("mkdir", dir.display())?;
    let _one_at_a_time = lock(dir)?;
    if answers(path)? {
        return Ok(());
    }
    let listener = listen_at(path)?;
    spawn_server(flags, options, bundle, path, &listener)
        // Otherwise the next start would take it for the socket of a shim that died.
        .inspect_err(|_| drop(std::fs::remove_file(path)))
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let open = File::open(dir).os("open", dir.display())?;
    Flock::lock(open, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::os("flock", dir.display(), errno))
}

/// Removes the sockets of shims that have ended. No call follows for a shim that is killed before containerd has
/// connected to it, so every start and delete does this. It reads the kernel's list, because a connection would wake
/// each shim of the host.
///
/// # Errors
///
/// The kernel's list of sockets cannot be read.
pub fn sweep(dir: &Path) -> Result<()> {
    let entries = || std::fs::read_dir(dir).into_iter().flatten().flatten();
    if entries().next().is_none() {
        return Ok(());
    }
    let _one_at_a_time = lock(dir)?;
    let bound = std::fs::read_to_string("/proc/net/unix").os("read", "/proc/net/unix")?;
    let bound: Vec<&str> = bound.lines().filter_map(|line| line.split(' ').next_back()).collect();
    for path in entries().map(|entry| entry.path()) {
        let listens = bound.iter().any(|other| Path::new(other) == path);
        // The list is that of this network namespace: a shim in another one may still listen.
        if is_name(&path) && !listens && !answers(&path)? {
            console::remove_left(&path)?;
        }
    }
    Ok(())
}

/// Returns true for a name that [`address`] makes: other shims have sockets in the same directory.
fn is_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit)
}

/// Returns true if a shim listens there. A socket without a listener is removed.
///
/// # Errors
///
/// The path is no socket that this process may connect to.
pub fn answers(path: &Path) -> Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let end = socket(AddressFamily::Unix, SockType::Stream, flags, None).os("socket", "")?;
    let address = UnixAddr::new(path).os("connect", path.display())?;
    match connect(end.as_fd().as_raw_fd(), &address) {
        // A full queue has a listener.
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(Errno::ECONNREFUSED) => {
            std::fs::remove_file(path).os("unlink", path.display())?;
            Ok(false)
        }
        Err(errno) => Err(errno).os("connect", path.display()),
    }
}

/// Returns true if the shim there answers. The connections of a shim that is being killed may be closed, which
/// containerd has noticed, while its listener still exists.
///
/// # Errors
///
/// As for [`answers`].
pub fn is_served(path: &Path) -> Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(2);
    if !answers(path)? {
        return Ok(false);
    }
    let ask = || {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let service = "containerd.task.v2.Task".to_owned();
        let call = Call { service, method: "Connect".into(), payload: Vec::new() };
        socket.write_all(&frame(1, REQUEST, &call.encode(PATIENCE)))?;
        socket.read(&mut [0; 1])
    };
    match ask() {
        Ok(length) => Ok(length > 0),
        // A stuck shim is alive.
        Err(error) => Ok(error.kind() == std::io::ErrorKind::WouldBlock),
    }
}

/// Creates the listener. It is never in the abstract namespace, which containers with the host's network can reach
/// (CVE-2020-15257).
fn listen_at(path: &Path) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).os("socket", "")?;
    let address = UnixAddr::new(path)
        .os("bind", path.display())
        .map_err(|e| e.hint("the directory of sockets must have a short path"))?;
    bind(listener.as_fd().as_raw_fd(), &address).os("bind", path.display())?;
    // Before any client can connect.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).os("chmod", path.display())?;
    listen(&listener, Backlog::MAXCONN).os("listen", path.display())?;
    Ok(listener)
}

fn spawn_server(
    flags: &Flags,
    options: &Options,
    bundle: &Path,
    path: &Path,
    listener: &OwnedFd,
) -> Result<()> {
    let own = std::env::current_exe().os("readlink", "/proc/self/exe")?;
    let own = c_path("own path", &own)?;
    let words = ["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address];
    let words = words.into_iter().chain(["-socket"]).map(str::as_bytes);
    let words = words.chain([path.as_os_str().as_bytes()]).map(CString::new);
    let words = words.collect::<std::result::Result<Vec<_>, _>>();
    let words = words.map_err(|_| Error::config("NUL in a flag"))?;
    let argv: Vec<CString> = [own.clone()].into_iter().chain(words).collect();
    let env = environment();
    let cwd = c_path("bundle", bundle)?;
    let image =
        Image { path: &own, argv: Vector::new(&argv), env: Vector::new(&env), cwd: Some(&cwd) };
    let null = super::stdio::null_device()?;
    let extras =
        SpawnOptions { descriptors: &[listener.as_fd()], session: true, ..SpawnOptions::default() };
    let server = spawn_with(&image, [null.as_fd(); 3], extras)
        .map_err(|refusal| Error::system(format!("start the shim's server: {refusal:?}")))?;
    place(server.pid, &options.shim_cgroup).inspect_err(|_| {
        let _ = crate::sys::signal::send(server.pid, libc::SIGKILL);
    })
}

/// Makes the shim one step easier for the OOM killer than the daemon, and moves it to the cgroup of the options.
fn place(pid: i32, cgroup: &str) -> Result<()> {
    let parent = nix::unistd::getppid();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj"));
    if let Ok(score) = score.unwrap_or_default().trim().parse::<i32>() {
        let score = (score + 1).clamp(-999, 1000);
        // Only a privileged process may lower its score.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    }
    if cgroup.is_empty() {
        return Ok(());
    }
    layout::join_existing(Path::new(cgroup), pid)
        .context(|| format!("failed to join cgroup {cgroup}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_of_their_own() {
        assert_eq!(digest(&[]), 0x6c62272e07bb014262b821756295c58d, "the offset of the algorithm");
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test")]
    fn a_listener_whom_nobody_serves_is_no_shim() {
        let path = std::env::temp_dir().join(format!("aril-served-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            // Every second connection only tests the listener; the second is closed unread, the fourth is answered.
            let next = || listener.accept().unwrap().0;
            drop(next());
            drop(next());
            drop(next());
            let mut asked = next();
            let mut request = [0; 10];
            asked.read_exact(&mut request).unwrap();
            asked.write_all(&request).unwrap();
        });
        assert!(!is_served(&path).unwrap());
        assert!(is_served(&path).unwrap());
        server.join().unwrap();
        assert!(!is_served(&path).unwrap(), "no process listens");
        assert!(!path.exists());
    }

    #[test]
    fn only_what_is_ours_and_dead_is_swept() {
        let dir = std::env::temp_dir().join(format!("aril-sweep-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let name = |digit: &str| dir.join(digit.repeat(32));
        let [living, dead] = ["a", "b"].map(name);
        let _listener = listen_at(&living).unwrap();
        drop(listen_at(&dead).unwrap());
        let others = [dir.join("c".repeat(64)), dir.join(format!("{}.1", "a".repeat(32)))];
        for other in &others {
            std::fs::write(other, "").unwrap();
        }
        std::fs::write(dir.join(format!("{}.1", "b".repeat(32))), "").unwrap();
        sweep(&dir).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        let [first, second] = others;
        assert_eq!(left, [living, second, first]);
        sweep(Path::new("/nonexistent")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_stale_socket_goes_and_a_living_one_stays() {
        let dir = std::env::temp_dir().join(format!("aril-start-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        assert!(!answers(&path).unwrap());
        let listener = listen_at(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(answers(&path).unwrap());
        drop(listener);
        assert!(!answers(&path).unwrap());
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
