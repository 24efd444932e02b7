//! A shim of a test's own: a daemon's part of the protocol, and a bundle to make a container of.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkfifo};
use runtime_tests::container::wait_until;
use runtime_tests::{Container, Output, View, host, skip};

use crate::wire::{Client, In, Out, out, read_frame, write_frame};

/// What a daemon has been told, in order: a topic and the event.
pub type Events = Arc<Mutex<Vec<(String, In)>>>;

/// `SHIM`, a path or a name, else the one beside the runtime under test.
fn shim_under_test() -> Option<PathBuf> {
    if let Ok(name) = std::env::var("SHIM") {
        return Some(skip::which(&name).unwrap_or_else(|| panic!("SHIM={name}: no such file")));
    }
    let beside =
        runtime_tests::Runtime::under_test().path.with_file_name("containerd-shim-aril-v2");
    if !beside.is_file() {
        skip::unprepared(&format!("{} is missing: cargo build", beside.display()));
        return None;
    }
    Some(beside)
}

pub struct Place {
    pub container: Container,
    shim: PathBuf,
    pub events: Events,
    /// What the shim says of itself.
    pub log: File,
}

/// A place, if shims can be tested here.
pub fn place() -> Option<Place> {
    place_for(Container::new(View::Host))
}

pub fn place_for(mut container: Container) -> Option<Place> {
    // A bundle of containerd's has the name of its container.
    container.id = container.mark.clone();
    let shim = skip::is_root().then(shim_under_test)??;
    let log = container.path("log");
    mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let log = reader(&log.display().to_string());
    let place = Place { container, shim, events: Events::default(), log };
    place.listen();
    Some(place)
}

impl Place {
    pub fn is_aril(&self) -> bool {
        self.shim.ends_with("containerd-shim-aril-v2")
    }

    /// The daemon's address; its name tells this test's socket from all others.
    fn daemon(&self) -> PathBuf {
        self.container.path("d")
    }

    /// Takes events from now on.
    pub fn listen(&self) {
        let path = self.container.path("d.ttrpc");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("the daemon's socket");
        let events = Arc::clone(&self.events);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (events, mut socket) = (Arc::clone(&events), socket);
                std::thread::spawn(move || {
                    while let Some((stream, payload)) = read_frame(&mut socket) {
                        let envelope = In::parse(&payload).message(3).message(1);
                        let event = envelope.message(4).message(2);
                        events.lock().expect("events").push((envelope.text(3), event));
                        write_frame(&mut socket, stream, 2, &out().bytes(1, []).0);
                    }
                });
            }
        });
    }

    /// No daemon is there any more; connections that are open stay.
    pub fn be_away(&self) {
        fs::remove_file(self.container.path("d.ttrpc")).expect("the daemon's socket");
    }

    pub fn topics(&self) -> Vec<String> {
        let events = self.events.lock().expect("events");
        let name = |topic: &String| topic.trim_start_matches("/tasks/").to_owned();
        events.iter().map(|(topic, _)| name(topic)).collect()
    }

    #[track_caller]
    pub fn wait_for_events(&self, topics: &[&str]) {
        wait_until(&format!("{topics:?}"), || self.topics().len() >= topics.len());
        assert_eq!(self.topics(), topics);
    }

    /// An action of the shim's, as containerd calls it.
    pub fn action(&self, id: &str, bundle: &Path, words: &[&str]) -> Output {
        let daemon = self.daemon().display().to_string();
        let flags = ["-namespace", &self.container.mark, "-id", id, "-address", &daemon];
        let ttrpc = self.container.path("d.ttrpc");
        let call = self.container.bare(&self.shim, &output_name(words));
        call.args(flags).args(words).dir(bundle).env("TTRPC_ADDRESS", ttrpc).output()
    }

    /// What it printed, as it is: the text of an [`Output`] would have lost something.
    pub fn printed(&self, words: &[&str]) -> Vec<u8> {
        let name = format!("calls/{}.out", output_name(words));
        fs::read(self.container.path(&name)).expect("the output")
    }

    /// A bundle beside the first one, with the same config but for its cgroup.
    pub fn another_bundle(&self, name: &str) -> PathBuf {
        self.another_bundle_with(name, |_| ())
    }

    pub fn another_bundle_with(
        &self,
        name: &str,
        edit: impl FnOnce(&mut serde_json::Value),
    ) -> PathBuf {
        let bundle = self.container.path(name);
        fs::create_dir_all(&bundle).expect("a bundle");
        let mut spec = self.container.spec.clone();
        let cgroup = spec["linux"]["cgroupsPath"].as_str().expect("a path").to_owned();
        spec["linux"]["cgroupsPath"] = format!("{cgroup}-{name}").into();
        spec["root"]["path"] = self.container.rootfs().display().to_string().into();
        edit(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).expect("config.json");
        bundle
    }

    /// Starts the shim for a bundle, or finds it.
    #[track_caller]
    pub fn start_for(&self, id: &str, bundle: &Path) -> PathBuf {
        let address = self.action(id, bundle, &["start"]).ok().stdout;
        let path = address.strip_prefix("unix://").unwrap_or_else(|| panic!("{address:?}"));
        path.into()
    }

    #[track_caller]
    pub fn start(&self) -> Shim<'_> {
        self.container.write_config();
        self.start_in(&self.container.id, &self.container.dir)
    }

    #[track_caller]
    pub fn start_in(&self, id: &str, bundle: &Path) -> Shim<'_> {
        let socket = self.start_for(id, bundle);
        let mut client = Client::connect(&socket);
        let pid = client.ok("Connect", out().bytes(1, "x")).number(1) as i32;
        Shim { place: self, socket, client, pid }
    }

    pub fn options(&self) -> Out {
        self.options_with(&self.container.runtime.path)
    }

    pub fn options_with(&self, binary: &Path) -> Out {
        let root = self.container.path("r").display().to_string();
        out().bytes(6, binary.display().to_string()).bytes(7, root)
    }
}

fn output_name(words: &[&str]) -> String {
    format!("shim-{}", words.last().expect("an action"))
}

/// The streams of a process.
#[derive(Default)]
pub struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

pub struct Shim<'a> {
    pub place: &'a Place,
    pub socket: PathBuf,
    pub client: Client,
    pub pid: i32,
}

impl Shim<'_> {
    pub fn id(&self) -> &str {
        &self.place.container.id
    }

    pub fn init(&self) -> Out {
        out().bytes(1, self.id())
    }

    pub fn exec(&self, exec: &str) -> Out {
        self.init().bytes(2, exec)
    }

    pub fn request(&self, streams: &Streams) -> Out {
        let container = &self.place.container;
        self.request_for(&container.id, &container.dir, streams, self.place.options())
    }

    pub fn request_for(&self, id: &str, bundle: &Path, streams: &Streams, options: Out) -> Out {
        let request = self.request_without_options(id, bundle, streams);
        request.any(10, "containerd.runc.v1.Options", &options.0)
    }

    /// With options as containerd passes those of a runtime that it does not know: TOML.
    pub fn request_with_toml(&self, streams: &Streams, toml: &str) -> Out {
        let Container { id, dir, runtime, .. } = &self.place.container;
        let root = self.place.container.path("r");
        let (binary, root) = (runtime.path.display(), root.display());
        let toml = format!("BinaryName = \"{binary}\"\nRoot = \"{root}\"\n{toml}");
        let options = out().bytes(1, "io.containerd.aril.v2").bytes(3, toml);
        let request = self.request_without_options(id, dir, streams);
        request.any(10, "runtimeoptions.v1.Options", &options.0)
    }

    fn request_without_options(&self, id: &str, bundle: &Path, streams: &Streams) -> Out {
        out()
            .bytes(1, id)
            .bytes(2, bundle.display().to_string())
            .number(4, streams.terminal.into())
            .bytes(5, &streams.stdin)
            .bytes(6, &streams.stdout)
            .bytes(7, &streams.stderr)
    }

    #[track_caller]
    pub fn create(&mut self, streams: &Streams) -> i32 {
        let request = self.request(streams);
        self.client.ok("Create", request).number(1) as i32
    }

    /// Creates and starts.
    #[track_caller]
    pub fn run(&mut self, streams: &Streams) -> i32 {
        let pid = self.create(streams);
        let init = self.init();
        assert_eq!(self.client.ok("Start", init).number(1) as i32, pid);
        pid
    }

    /// Registers a process.
    #[track_caller]
    pub fn add(&mut self, exec: &str, args: &[&str], streams: &Streams) {
        let env = ["PATH=/bin"];
        let process = serde_json::json!({
            "args": args, "cwd": "/", "env": env, "terminal": streams.terminal,
            "user": {"uid": 0, "gid": 0},
        });
        let request = self
            .exec(exec)
            .number(3, streams.terminal.into())
            .bytes(4, &streams.stdin)
            .bytes(5, &streams.stdout)
            .bytes(6, &streams.stderr);
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        let request = request.any(7, kind, process.to_string().as_bytes());
        self.client.ok("Exec", request);
    }

    /// Its exit status.
    #[track_caller]
    pub fn wait(&mut self, exec: &str) -> u64 {
        let who = self.exec(exec);
        self.client.ok("Wait", who).number(1)
    }

    #[track_caller]
    pub fn status(&mut self, exec: &str) -> &'static str {
        let who = self.exec(exec);
        let names = ["unknown", "created", "running", "stopped", "paused", "pausing"];
        names[self.client.ok("State", who).number(4) as usize]
    }

    #[track_caller]
    pub fn kill(&mut self, exec: &str, signal: u64) {
        let who = self.exec(exec).number(3, signal);
        self.client.ok("Kill", who);
    }

    /// Ends and deletes the container, and sees the shim out.
    #[track_caller]
    pub fn finish(mut self) {
        if self.status("") != "stopped" {
            self.kill("", 9);
        }
        self.wait("");
        let init = self.init();
        self.client.ok("Delete", init);
        let init = self.init();
        // Its end may come before its answer.
        self.client.send("Shutdown", init);
        wait_until("the shim's end", || host::is_gone(self.pid));
        assert!(!self.socket.exists(), "{} is left", self.socket.display());
    }
}

impl Drop for Shim<'_> {
    /// Of a test that failed.
    fn drop(&mut self) {
        if !host::is_gone(self.pid) && std::thread::panicking() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            self.place.action(&self.place.container.id, &self.place.container.dir, &["delete"]);
        }
    }
}

/// A fifo beside the bundle.
pub fn fifo(place: &Place, name: &str) -> String {
    let path = place.container.path(name);
    mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    path.display().to_string()
}

/// The reading end; opening it waits for nobody.
pub fn reader(path: &str) -> File {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.expect("a fifo");
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
        .expect("blocking");
    file
}

pub fn rest(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    text
}
