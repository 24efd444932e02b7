//! A place where an engine may do what it wants, and the client to talk to it.

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, Output, View, host, skip};

/// Names the test that runs in its namespaces already.
const INSIDE: &str = "ARIL_TEST_INSIDE";

/// Runs `test` in namespaces of its own, if engines are wanted and the tools are there.
pub fn privately(name: &str, tools: &[(&str, &str)], test: impl FnOnce(&Place)) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return test(&Place::new());
    }
    if std::env::var_os("ENGINES").is_none() {
        return skip::inapplicable("engines are tested with ENGINES=1");
    }
    let present = |(tool, package): &(&str, &str)| skip::tool(tool, package).is_some();
    let common = [("unshare", "util-linux"), ("ip", "iproute2")];
    if !skip::is_root() || !common.iter().chain(tools).all(present) {
        return;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--propagation=private"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, name)
        .status()
        .expect("unshare");
    assert!(status.success(), "{name} failed inside");
}

/// Directories, a rootfs, and the mark by which leftovers are found.
pub struct Place(Container);

impl Place {
    fn new() -> Self {
        // Engines and shims keep there what no option moves.
        hide(Path::new("/run"));
        hide(Path::new("/var/lib"));
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
        assert!(up.success());
        let container = Container::new(View::Host);
        // No overlay is made on an overlay, such as the root of many a build machine.
        let own = container.directory("engine");
        hide(&own);
        Self(container)
    }

    /// A path of the engine's.
    pub fn path(&self, name: &str) -> String {
        self.0.path("engine").join(name).display().to_string()
    }

    pub fn runtime(&self) -> String {
        self.0.runtime.path.display().to_string()
    }

    /// The cgroup below which all containers are to be.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.0.mark)
    }

    /// Removes what the engine keeps there for itself, once it is empty.
    pub fn remove_cgroup(&self, name: &str) {
        wait_until(&format!("the end of cgroup {name}"), || {
            let mut left = host::cgroups(&self.0.mark);
            left.retain(|dir| dir.ends_with(name) && std::fs::remove_dir(dir).is_err());
            left.is_empty()
        });
    }

    pub fn rootfs(&self) -> String {
        self.0.rootfs().display().to_string()
    }

    /// The rootfs, as an archive.
    pub fn archive(&self) -> String {
        let archive = self.path("rootfs.tar");
        let args = ["-C", &self.rootfs(), "-cf", &archive, "."];
        let code = Command::new("tar").args(args).status().expect("tar").code();
        // 1: a file changed, for other tests make and remove links to it.
        assert!(matches!(code, Some(0 | 1)), "tar: {code:?}");
        archive
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A daemon, which ends with what is returned.
    pub fn daemon(&self, program: &str, args: &[&str]) -> Daemon {
        let log = File::create(self.path(&format!("{program}.log"))).expect("a log");
        let child = Command::new(program)
            .args(args)
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        Daemon(child)
    }

    /// The program that talks to the engine, with the arguments that it always has.
    pub fn client<'a>(&'a self, program: &str, args: &[&str]) -> Client<'a> {
        Client {
            place: self,
            program: skip::which(program).expect("looked for before"),
            args: args.iter().map(ToString::to_string).collect(),
            calls: AtomicU32::new(0),
        }
    }
}

impl Drop for Place {
    /// The namespace would take it along, but leftovers are looked for before its end.
    fn drop(&mut self) {
        let _ = umount2(&self.0.path("engine"), MntFlags::MNT_DETACH);
    }
}

/// An empty directory in the place of the host's.
fn hide(dir: &Path) {
    create_dir_all(dir).expect("a directory");
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("tmpfs");
}

pub struct Client<'a> {
    place: &'a Place,
    program: PathBuf,
    args: Vec<String>,
    calls: AtomicU32,
}

impl Client<'_> {
    pub fn call(&self, args: &[&str]) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.place.0.bare(&self.program, &format!("client-{number}")).args(&self.args).args(args)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.call(args).output()
    }

    /// What a call that succeeds prints.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> String {
        self.run(args).ok().stdout.trim_end().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, args: &[&str], text: &str) {
        wait_until(&format!("{text:?} from {}", args.join(" ")), || {
            let out = self.run(args);
            out.code == Some(0) && out.stdout.contains(text)
        });
    }
}

pub struct Daemon(Child);

impl Drop for Daemon {
    /// As a service manager would.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
