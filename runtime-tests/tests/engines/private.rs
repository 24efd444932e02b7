//! A place where an engine may do what it wants, and the client to talk to it.

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::container::wait_until;
use runtime_tests::{Call, Container, Output, Runtime, View, host, skip};

/// Names the test that runs in its namespaces already.
const INSIDE: &str = "ARIL_TEST_INSIDE";

/// Runs `test` in namespaces of its own, if engines are wanted and the tools are there.
pub fn privately(name: &str, tools: &[(&str, &str)], test: impl FnOnce(&Place)) {
    in_namespaces(name, tools, || test(&Place::new(Driver::Tested)));
}

/// Runs a scenario under the runtime that the engine comes with, then under the one being tested: what
/// [`Client::see`] and [`Place::note`] have seen must be the same.
pub fn compared(name: &str, tools: &[(&str, &str)], scenario: impl Fn(&Place)) {
    let seen = |driver| {
        let place = Place::new(driver);
        scenario(&place);
        place.seen.lock().expect("what was seen").clone()
    };
    let tools = [tools, &[("runc", "runc")]].concat();
    in_namespaces(name, &tools, || {
        let [own, tested] = [Driver::Own, Driver::Tested].map(seen);
        assert!(!own.is_empty(), "nothing was compared");
        for (own, tested) in own.iter().zip(&tested) {
            assert_eq!(tested, own, "tested, and the engine's own");
        }
        assert_eq!(tested.len(), own.len());
    });
}

fn in_namespaces(name: &str, tools: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return test();
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

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Driver {
    /// What the engine comes with: runc.
    Own,
    Tested,
}

/// Directories, a rootfs, and the mark by which leftovers are found.
pub struct Place {
    container: Container,
    pub driver: Driver,
    seen: Mutex<Vec<String>>,
}

impl Place {
    fn new(driver: Driver) -> Self {
        // Engines and shims keep there what no option moves.
        hide(Path::new("/run"));
        hide(Path::new("/var/lib"));
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
        assert!(up.success());
        let container = Container::new(View::Host);
        // No overlay is made on an overlay, such as the root of many a build machine.
        let own = container.directory("engine");
        hide(&own);
        Self { container, driver, seen: Mutex::default() }
    }

    /// Something to be compared.
    pub fn note(&self, what: impl Into<String>) {
        self.seen.lock().expect("what was seen").push(what.into());
    }

    /// A path of the engine's.
    pub fn path(&self, name: &str) -> String {
        self.container.path("engine").join(name).display().to_string()
    }

    pub fn runtime(&self) -> String {
        let path = match self.driver {
            Driver::Own => skip::which("runc").expect("looked for before"),
            Driver::Tested => Runtime::under_test().path.clone(),
        };
        path.display().to_string()
    }

    /// What leftovers are found by.
    pub fn mark(&self) -> &str {
        &self.container.mark
    }

    /// The cgroup below which all containers are to be.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.container.mark)
    }

    /// Removes what the engine keeps there for itself, once it is empty.
    pub fn remove_cgroup(&self, name: &str) {
        wait_until(&format!("the end of cgroup {name}"), || {
            let mut left = host::cgroups(&self.container.mark);
            left.retain(|dir| dir.ends_with(name) && std::fs::remove_dir(dir).is_err());
            left.is_empty()
        });
    }

    pub fn rootfs(&self) -> String {
        self.container.rootfs().display().to_string()
    }

    /// All that run in it.
    pub fn processes(&self) -> Vec<i32> {
        let mut processes = host::processes(self.mark());
        processes.retain(|pid| host::is_marked(*pid, self.mark()));
        processes
    }

    /// The same with their command lines.
    pub fn lines(&self) -> Vec<String> {
        let line = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
        };
        self.processes().iter().map(line).collect()
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

    /// The rootfs, as an image of this name in the form of `docker save`.
    pub fn image(&self, name: &str) -> String {
        let layer = self.archive();
        let sum = Command::new("sha256sum").arg(&layer).output().expect("sha256sum").stdout;
        let sum = String::from_utf8_lossy(&sum[..64]).into_owned();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        let list = serde_json::json!([
            {"Config": "image.json", "RepoTags": [name], "Layers": ["rootfs.tar"]}
        ]);
        self.file("image.json", &config.to_string());
        self.file("manifest.json", &list.to_string());
        let (image, dir) = (self.path("image.tar"), self.path(""));
        let args = ["-C", &dir, "-cf", &image, "manifest.json", "image.json", "rootfs.tar"];
        assert!(Command::new("tar").args(args).status().expect("tar").success());
        image
    }

    /// A path that nobody has had before.
    pub fn fresh(&self, extension: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.path(&format!("{}{extension}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A daemon, which ends with what is returned.
    pub fn daemon(&self, program: &str, args: &[&str]) -> Daemon {
        let log_path = self.path(&format!("{program}.log"));
        let log = File::create(&log_path).expect("a log");
        // Where engines look for shims and runtimes by their names.
        let mut path = Path::new(&self.runtime()).parent().expect("a directory").to_owned();
        let rest = std::env::var_os("PATH").unwrap_or_default();
        path.as_mut_os_string().extend([":".as_ref(), rest.as_os_str()]);
        let child = Command::new(program)
            .args(args)
            .env("PATH", path)
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        Daemon { child, log: log_path }
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
        let _ = umount2(&self.container.path("engine"), MntFlags::MNT_DETACH);
    }
}

/// An empty directory in the place of the host's.
pub fn hide(dir: &Path) {
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
        self.place
            .container
            .bare(&self.program, &format!("client-{number}"))
            .args(&self.args)
            .args(args)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.call(args).output()
    }

    /// A call whose exit code and output are compared.
    #[track_caller]
    pub fn see(&self, args: &[&str]) -> Output {
        self.see_also(args, &[], &[])
    }

    /// The same, with words in between that are different each time.
    #[track_caller]
    pub fn see_also(&self, before: &[&str], unseen: &[&str], after: &[&str]) -> Output {
        let out = self.run(&[before, unseen, after].concat());
        let line = [before, after].concat().join(" ");
        self.place.note(format!("{line}: {:?}\n{}", out.code, out.stdout));
        out
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

pub struct Daemon {
    child: Child,
    log: String,
}

impl Daemon {
    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// As nobody should.
    pub fn kill(mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Daemon {
    /// As a service manager would.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("the end of {}:\n{}", self.log, last.join("\n"));
        }
    }
}
