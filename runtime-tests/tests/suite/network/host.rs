//! Hosts for tests of networks: a network namespace each, with a `/run` and `/var/lib` of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use runtime_tests::{Call, Container, View, skip};
use serde_json::json;

/// How long the kernels may take for an answer, if one comes: more than the second after which TCP repeats its SYN.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Host {
    holder: Child,
}

/// Whether there can be such hosts; else why not.
pub fn possible() -> bool {
    skip::is_root()
        && ["ip", "nsenter", "unshare"].iter().all(|tool| skip::tool(tool, "iproute2").is_some())
        && runtime_tests::Runtime::under_test().only_aril("networks of its own")
}

impl Host {
    pub fn new() -> Self {
        let script = "mount -t tmpfs none /run && mount -t tmpfs none /var/lib && \
                      ip link set lo up && echo ready && exec sleep 1000";
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script]);
        command.stdout(Stdio::piped());
        // SAFETY: one system call between fork and exec, which takes integers only.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
                    .map_err(std::io::Error::from)
            });
        }
        let mut holder = command.spawn().expect("unshare");
        let mut line = String::new();
        let out = holder.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the host was not made");
        Self { holder }
    }

    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    fn enter(&self) -> [String; 5] {
        let pid = self.holder.id().to_string();
        ["-t".into(), pid, "-n".into(), "-m".into(), "--".into()]
    }

    /// A script of the host's, which succeeds; what it prints.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let out = Command::new("nsenter").args(self.enter()).args(["sh", "-c", script]).output();
        let out = out.expect("nsenter");
        assert!(out.status.success(), "{script}: {out:?}");
        String::from_utf8(out.stdout).expect("utf-8")
    }

    /// Any call of a container's runtime, made here.
    pub fn call(&self, container: &Container, args: &[&str]) -> Call {
        let outputs = format!("host-{}", args.join("-").replace('/', "_"));
        let outputs: String = outputs.chars().take(60).collect();
        container
            .bare(Path::new("/usr/bin/nsenter"), &outputs)
            .args(self.enter())
            .arg(&container.runtime.path)
            .arg("--root")
            .arg(&container.root)
            .args(container.globals())
            .args(args)
    }

    /// `aril network` with these words.
    pub fn network(&self, container: &Container, words: &[&str]) -> Call {
        self.call(container, &[&["network"], words].concat())
    }

    /// A container that sleeps, with these flags of `run`.
    #[track_caller]
    pub fn sleeper(&self, flags: &[&str]) -> Container {
        let container = sleeper();
        self.run(&container, flags);
        container
    }

    #[track_caller]
    pub fn run(&self, container: &Container, flags: &[&str]) {
        self.run_call(container, flags).ok();
    }

    pub fn run_call(&self, container: &Container, flags: &[&str]) -> Call {
        container.write_config();
        let bundle = container.dir.to_str().expect("utf-8");
        let args = [&["run", "-d", "-b", bundle], flags, &[container.id.as_str()]].concat();
        self.call(container, &args)
    }

    /// The runtime's own process, while it runs: nsenter has become it.
    pub fn start(&self, container: &Container, args: &[&str]) -> Child {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).arg(&container.runtime.path).arg("--root").arg(&container.root);
        command
            .args(container.globals())
            .args(args)
            .env(runtime_tests::host::MARK, &container.mark);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("nsenter")
    }

    /// The same of a `run` with these flags.
    pub fn spawn(&self, container: &Container, flags: &[&str]) -> Child {
        let bundle = container.dir.to_str().expect("utf-8");
        self.start(container, &[&["run", "-d", "-b", bundle], flags, &[&container.id]].concat())
    }

    #[track_caller]
    pub fn delete(&self, container: &Container) {
        self.call(container, &["delete", "--force", &container.id]).ok();
    }

    /// Files of networks that are not definitions: leases, above all.
    pub fn leases(&self) -> String {
        self.sh("find /run/aril/@network/leases -type f -o -type l 2>/dev/null || true")
    }

    /// Links of containers that are there now.
    pub fn links(&self) -> usize {
        self.sh("ip -o link show type veth").lines().filter(|l| l.contains("aril-")).count()
    }

    /// Everything in maps of ports; without nft, nothing is said.
    pub fn elements(&self) -> Option<String> {
        skip::which("nft")?;
        let maps = ["ports4", "ports6", "bound4", "bound6", "ranges4", "ranges6"];
        let list = maps.map(|map| format!("nft list map inet aril {map} | grep elements || true"));
        Some(self.sh(&list.join("; ")))
    }

    #[track_caller]
    pub fn has_nothing_left(&self) {
        assert_eq!(self.leases(), "");
        runtime_tests::container::wait_until("the last link's end", || self.links() == 0);
        assert_eq!(self.elements().unwrap_or_default(), "");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A second host, beside the first on one wire: 192.0.2.1 and .2, 2001:db8::1 and ::2.
pub fn neighbour(host: &Host) -> Host {
    let other = Host::new();
    let pid = other.namespace().components().nth(2).map(|c| c.as_os_str().to_owned());
    let pid = pid.expect("a pid").into_string().expect("digits");
    host.sh(&format!("ip link add wire type veth peer name wire netns {pid}"));
    for (side, n) in [(host, 1), (&other, 2)] {
        side.sh(&format!(
            "ip addr add 192.0.2.{n}/24 dev wire && ip addr add 2001:db8::{n}/64 dev wire nodad && \
             ip link set wire up"
        ));
    }
    other
}

pub fn sleeper() -> Container {
    Container::new(View::Host).sleeper()
}

/// Sets an annotation of the config, which the operator allows.
pub fn annotate(container: &mut Container, key: &str, value: &str) {
    container.annotate(key, value);
}

pub fn namespace_of(container: &Container) -> PathBuf {
    format!("/proc/{}/ns/net", container.pid()).into()
}

/// The container's address, of either family.
#[track_caller]
pub fn address(host: &Host, container: &Container, ipv4: bool) -> IpAddr {
    let file = host.leases();
    for path in file.lines() {
        let text = host.sh(&format!("cat {path}"));
        let lease: serde_json::Value = serde_json::from_str(&text).expect("a lease");
        let ours = |h: &serde_json::Value| {
            h["id"] == json!(container.id) && h["root"] == json!(container.root)
        };
        if lease["holders"].as_array().expect("holders").iter().any(ours) {
            let all = lease["addresses"].as_array().expect("addresses");
            let mut parsed = all.iter().map(|a| a.as_str().expect("text").parse().expect("ip"));
            return parsed.find(|a: &IpAddr| a.is_ipv4() == ipv4).expect("of that family");
        }
    }
    panic!("no lease of {}: {file}", container.id)
}

/// Runs `body` in the network namespace of `file`, on a thread of its own.
pub fn within<T: Send>(namespace: &Path, body: impl FnOnce() -> T + Send) -> T {
    let file = File::open(namespace).expect("a namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("setns");
            body()
        });
        thread.join().expect("the thread's end")
    })
}

/// A listener on `port`. A child that another test forks holds the listener of the call before until it
/// executes its program.
fn listen(port: u16) -> TcpListener {
    let listener = std::cell::OnceCell::new();
    runtime_tests::container::wait_until("the port is free", || {
        match TcpListener::bind(("::", port)) {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
            other => listener.set(other.expect("bind")).expect("once"),
        }
        listener.get().is_some()
    });
    listener.into_inner().expect("bound")
}

/// Whether a TCP connection from one namespace to `to` comes to a server on `port` in another: then,
/// from which address.
pub fn tcp(from: &Path, to: SocketAddr, server: &Path, port: u16) -> Option<IpAddr> {
    let listener = within(server, || listen(port));
    let mut client = within(from, || TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    // The client is connected before its last packet has come to the server, which a limited rate delays.
    let mut arrived = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut arrived, PollTimeout::try_from(PATIENCE).expect("a timeout")).expect("poll") == 0 {
        return None;
    }
    let (mut accepted, peer) = listener.accept().ok()?;
    accepted.write_all(b"hello").expect("write");
    drop(accepted);
    let mut text = String::new();
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.read_to_string(&mut text).ok()?;
    (text == "hello").then(|| peer.ip().to_canonical())
}

/// The same by UDP, there and back.
pub fn udp(from: &Path, to: SocketAddr, server: &Path, port: u16) -> Option<IpAddr> {
    let socket = within(server, || UdpSocket::bind(("::", port)).expect("bind"));
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = within(from, || UdpSocket::bind(any).expect("bind"));
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    client.send_to(b"ping", to).ok()?;
    let mut buffer = [0; 16];
    let (_, peer) = socket.recv_from(&mut buffer).ok()?;
    socket.send_to(b"pong", peer).ok()?;
    let (length, back) = client.recv_from(&mut buffer).ok()?;
    (&buffer[..length] == b"pong" && back == to).then(|| peer.ip().to_canonical())
}
