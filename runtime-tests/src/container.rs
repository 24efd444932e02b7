//! A container of a test, with its own directory, bundle, rootfs, state root and cgroup.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::runtime::Runtime;
use crate::user::User;
use crate::view::View;
use crate::{Call, Output, host, runtime, spec};

const APPLETS: &[&str] = &[
    "busybox", "cat", "chmod", "echo", "env", "false", "grep", "head", "hostname", "id", "kill",
    "ls", "mkdir", "mknod", "mount", "ps", "readlink", "rm", "sh", "sleep", "stat", "stty", "tail",
    "test", "touch", "true", "tty", "umount", "uname", "wc",
];

pub struct Container {
    pub view: View,
    pub runtime: &'static Runtime,
    /// Mark: unique on the host, and part of the name of everything that belongs to the container.
    pub mark: String,
    pub id: String,
    /// Bundle directory.
    pub dir: PathBuf,
    /// Value of the runtime's `--root`.
    pub root: PathBuf,
    pub spec: Value,
    /// Calls write to [`Container::log`].
    logging: bool,
    /// Global flags, between the program and the verb.
    globals: Vec<OsString>,
    /// Cgroup that calls run in.
    place: Option<PathBuf>,
    user: Option<u32>,
    env: Vec<(&'static str, OsString)>,
    calls: AtomicU32,
}

impl Container {
    /// Makes a container of the runtime under test with runc's default spec.
    pub fn new(view: View) -> Self {
        Self::of(Runtime::under_test(), view)
    }

    pub fn of(runtime: &'static Runtime, view: View) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Padded, so that no mark is a prefix of another.
        let mark = format!("{}-{number:05}", own_mark());
        let temporary = std::env::temp_dir().canonicalize().expect("a temporary directory");
        let dir = temporary.join(&mark);
        fs::create_dir_all(dir.join("calls")).expect("own directory");
        make_rootfs(&dir.join("rootfs"));
        let mut container = Self {
            view,
            runtime,
            id: format!("c{number}"),
            root: dir.join("state"),
            dir,
            spec: Value::Null,
            logging: false,
            globals: Vec::new(),
            place: None,
            user: None,
            env: Vec::new(),
            mark,
            calls: AtomicU32::new(0),
        };
        container.take_spec(spec::runc(view));
        container.args(["true"])
    }

    /// Replaces the spec, except for the path of the cgroup.
    pub fn take_spec(&mut self, spec: Value) {
        self.spec = spec;
        self.spec["linux"]["cgroupsPath"] = json!(self.cgroups_path());
    }

    #[must_use]
    pub fn args<A: AsRef<str>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        let args: Vec<String> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// Makes the container run this shell script.
    #[must_use]
    pub fn script(self, script: &str) -> Self {
        self.args(["sh", "-c", script])
    }

    /// Makes the container run until it is killed.
    #[must_use]
    pub fn sleeper(self) -> Self {
        self.args(["sleep", "1000"])
    }

    /// Global flags, for calls that are assembled elsewhere.
    pub fn globals(&self) -> &[OsString] {
        &self.globals
    }

    /// Adds an annotation, which the operator allows by its key.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotate(key, value);
        self
    }

    /// Does the same in place.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.spec["annotations"][key] = json!(value);
        let allow = OsString::from(format!("--allow-annotation={key}"));
        if self.runtime.is_aril() && !self.globals.contains(&allow) {
            self.globals.push(allow);
        }
    }

    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    #[must_use]
    pub fn mounting(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    #[must_use]
    pub fn without_namespace(mut self, kind: &str) -> Self {
        let list = self.spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|ns| ns["type"] != kind);
        self
    }

    /// Adds a namespace, or replaces the one of the same type.
    #[must_use]
    pub fn namespace(self, namespace: Value) -> Self {
        let kind = namespace["type"].as_str().expect("a type").to_owned();
        let mut changed = self.without_namespace(&kind);
        let list = changed.spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.push(namespace);
        changed
    }

    /// Adds a user namespace in which the container's IDs begin at `first` on the host.
    #[must_use]
    pub fn in_user_namespace(self, first: u32) -> Self {
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        chown_tree(&self.rootfs(), first);
        self.namespace(json!({"type": "user"})).edit(|spec| {
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
        })
    }

    /// Makes the cgroup a scope of systemd in this slice.
    #[must_use]
    pub fn by_systemd(mut self, slice: &str) -> Self {
        self.globals.push("--systemd-cgroup".into());
        self.spec["linux"]["cgroupsPath"] = json!(format!("{slice}:{}:{}", self.mark, self.id));
        self
    }

    /// Makes an unprivileged user the caller, and the owner of the container's root.
    #[must_use]
    pub fn rootless(mut self, user: &User) -> Self {
        chown_tree(&self.dir, user.uid);
        let map = json!([{"containerID": 0, "hostID": user.uid, "size": 1}]);
        self.spec["linux"]["uidMappings"] = map.clone();
        self.spec["linux"]["gidMappings"] = map;
        for mount in self.spec["mounts"].as_array_mut().expect("mounts") {
            // The group of terminals is not mapped.
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
        self.user = Some(user.uid);
        let runtime_dir = user.runtime_dir();
        let bus = format!("unix:path={}/bus", runtime_dir.display());
        self.env.push(("XDG_RUNTIME_DIR", runtime_dir.into()));
        self.env.push(("DBUS_SESSION_BUS_ADDRESS", bus.into()));
        self.place = user.cgroup.clone();
        self.namespace(json!({"type": "user"}))
    }

    /// Makes calls run in this cgroup.
    #[must_use]
    pub fn called_from(mut self, cgroup: &Path) -> Self {
        self.place = Some(cgroup.to_owned());
        self
    }

    /// Adds `--log` and `--log-format json` to further calls.
    #[must_use]
    pub fn logging(mut self) -> Self {
        self.logging = true;
        self
    }

    /// Records of the log, one JSON object per line.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("log.json")).unwrap_or_default();
        let record = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"));
        text.lines().map(record).collect()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Path beside the rootfs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file beside the rootfs and returns its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    pub fn cgroups_path(&self) -> String {
        format!("/{}/{}", self.mark, self.id)
    }

    /// Directory of the cgroup in the hierarchy of a controller, as the host sees it.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let roots = host::hierarchies();
        let v1 = roots.iter().find(|root| !self.view.is_v2() && root.ends_with(controller));
        let v2 = || roots.iter().find(|root| root.join("cgroup.controllers").exists());
        let root = v1.or_else(v2).expect("a cgroup hierarchy");
        root.join(&self.mark).join(&self.id)
    }

    pub fn write_config(&self) {
        let text = serde_json::to_vec_pretty(&self.spec).expect("json");
        fs::write(self.dir.join("config.json"), text).expect("config.json");
    }

    /// Calls the runtime with these arguments and `--root`.
    pub fn call<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut call = self.bare(&self.runtime.path, &format!("{number}"));
        call = call.arg("--root").arg(&self.root).args(&self.globals);
        if self.logging {
            call = call.arg("--log").arg(self.path("log.json")).args(["--log-format", "json"]);
        }
        call.args(args)
    }

    /// Calls the runtime with these arguments alone.
    pub fn plain<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        self.bare(&self.runtime.path, "plain").args(args)
    }

    /// Calls another program in place of the runtime, in the view and with the mark.
    pub fn bare(&self, program: &Path, outputs: &str) -> Call {
        let mut call = Call::new(program, &self.dir, &self.path("calls").join(outputs));
        if let Some(cgroup) = &self.place {
            // Before the view changes the path of the cgroup.
            call = call.stage(["cgroup".as_ref(), cgroup.as_os_str()]);
        }
        call = call.stage(self.view.stages()).env(host::MARK, &self.mark);
        if let Some(uid) = self.user {
            call = call.stage(["user", &uid.to_string()]);
        }
        self.env.iter().fold(call, |call, (key, value)| call.env(key, value))
    }

    /// Calls `run` with these flags and the current config.
    pub fn run_call(&self, flags: &[&str]) -> Call {
        self.write_config();
        self.call([&["run", "-b", self.dir.to_str().expect("utf-8")], flags].concat()).arg(&self.id)
    }

    pub fn create_call(&self, flags: &[&str]) -> Call {
        self.write_config();
        let args = [&["create", "-b", self.dir.to_str().expect("utf-8")], flags].concat();
        self.call(args).arg(&self.id)
    }

    pub fn run(&self) -> Output {
        self.run_call(&[]).output()
    }

    #[track_caller]
    pub fn run_detached(&self) {
        self.run_call(&["-d"]).ok();
    }

    #[track_caller]
    pub fn create(&self) {
        self.create_call(&[]).ok();
    }

    /// Calls a verb whose only argument is the container ID.
    pub fn verb(&self, verb: &str) -> Output {
        self.call([verb, &self.id]).output()
    }

    #[track_caller]
    pub fn start(&self) {
        self.verb("start").silent();
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.call(["kill", &self.id, signal]).output()
    }

    pub fn delete(&self) -> Output {
        self.verb("delete")
    }

    pub fn delete_by_force(&self) -> Output {
        self.call(["delete", "--force", &self.id]).output()
    }

    pub fn exec<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.call(["exec", &self.id]).args(args).output()
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        let out = self.verb("state").ok();
        assert!(out.stderr.is_empty(), "engines parse both outputs together: {out:#?}");
        serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:#?}"))
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().expect("a pid").try_into().expect("a pid")
    }

    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        wait_until(&format!("status {status}"), || self.status() == status);
    }

    /// Lists all files in the state root.
    pub fn left_in_root(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Asserts that no process, cgroup, mount or state of the container exists. The cgroup above the container's
    /// belongs to the fixture.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        let start = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let caller = format!("{}/{}", self.mark, User::CALLER);
        let parent = |line: &String| {
            line.starts_with("cgroup") && (line.ends_with(&self.mark) || line.ends_with(&caller))
        };
        let mut left: Vec<String> =
            host::traces(&self.mark).into_iter().filter(|line| !parent(line)).collect();
        left.extend(self.left_in_root().iter().map(|path| format!("state {}", path.display())));
        if !self.runtime.is_aril() {
            // runc 1.1.5 does not wait for a v2 cgroup whose processes are still ending.
            let v1 = |line: &String| !line.starts_with("cgroup") || !line.contains("/unified/");
            left.retain(v1);
        }
        left
    }
}

impl Drop for Container {
    /// Deletes the container if the test did not, and fails if anything is left of it.
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let mut left = Vec::new();
        if !self.left_in_root().is_empty() {
            let call = self.call(["delete", "--force", &self.id]);
            // A second panic would abort the suite.
            let deleted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.output()));
            if !failed {
                match deleted {
                    Ok(out) if out.code == Some(0) => {}
                    out => left.push(format!("delete --force: {out:#?}")),
                }
            }
        }
        if !failed {
            let start = Instant::now();
            left.extend(loop {
                let now = self.leftovers();
                if now.is_empty() || start.elapsed() > PATIENCE {
                    break now;
                }
                std::thread::sleep(Duration::from_millis(20));
            });
        }
        host::scrub(&self.mark);
        let _ = fs::remove_dir_all(&self.dir);
        assert!(failed || left.is_empty(), "left behind by {}: {left:#?}", self.runtime.name);
    }
}

/// Time limit for an event, also on a machine with ten processes for each processor.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[track_caller]
pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Populates a rootfs with busybox and the observer's probe, as hard links to copies: never to the host's own files,
/// which a container with a writable rootfs could change.
fn make_rootfs(rootfs: &Path) {
    let [busybox, probe] = originals();
    for dir in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "mnt", "var"] {
        fs::create_dir_all(rootfs.join(dir)).expect("rootfs");
    }
    for applet in APPLETS {
        link(busybox, &rootfs.join("bin").join(applet));
    }
    link(probe, &rootfs.join("bin/probe"));
    let passwd = "root:x:0:0:root:/root:/bin/sh\nmail:x:8:8:mail:/var/mail:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nmail:x:8:\n").expect("group");
}

/// Prefix of the marks of all containers of this process: its pid and the number of its pid namespace. `make fresh`
/// beside `make test` has the same pids on the same cgroup hierarchies.
pub fn own_mark() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino() & 0xffff);
    format!("aril-test-{}-{namespace:x}", std::process::id())
}

fn originals() -> &'static [PathBuf; 2] {
    static ORIGINALS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "/bin/busybox is missing: apt-get install busybox-static");
        [copy(busybox), copy(&runtime::own_directory().join("probe"))]
    })
}

/// Copies a file for this test process, beside the build.
fn copy(file: &Path) -> PathBuf {
    let dir = runtime::own_directory().join("rootfs-originals");
    fs::create_dir_all(&dir).expect("a directory for originals");
    let name = file.file_name().expect("a name");
    let metadata = fs::metadata(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let age = metadata.modified().expect("mtime").duration_since(std::time::UNIX_EPOCH);
    let age = age.unwrap_or_default().as_nanos();
    let kept = dir.join(format!("{}-{}-{age}", name.display(), metadata.len()));
    if !kept.exists() {
        let fresh = dir.join(format!("{}-{}", name.display(), std::process::id()));
        fs::copy(file, &fresh).expect("a copy");
        fs::rename(&fresh, &kept).expect("the copy in its place");
    }
    kept
}

fn link(original: &Path, to: &Path) {
    if fs::hard_link(original, to).is_err() {
        fs::copy(original, to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
}

/// Changes the owner of directories only: other containers share the files.
fn chown_tree(dir: &Path, id: u32) {
    std::os::unix::fs::chown(dir, Some(id), Some(id)).expect("chown");
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            chown_tree(&entry.path(), id);
        }
    }
}
