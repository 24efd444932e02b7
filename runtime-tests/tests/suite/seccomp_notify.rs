//! An agent that answers for system calls: SCMP_ACT_NOTIFY.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use runtime_tests::{Container, View, on_the_host};
use serde_json::{Value, json};

/// From linux/seccomp.h.
const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const CONTINUE: u32 = 1;

/// What an agent decides for a call.
#[derive(Clone, Copy)]
pub enum Answer {
    Value(i64),
    Errno(i32),
    Continue,
}

/// Takes one listener, then answers until nobody is left under its filter.
pub struct Agent(JoinHandle<(Value, usize)>);

impl Agent {
    pub fn at(path: &Path, decide: fn(i32) -> Answer) -> Self {
        let socket = UnixListener::bind(path).expect("bind");
        Self(std::thread::spawn(move || {
            let (message, listener) = take(&socket);
            let mut answered = 0;
            while answer(&listener, decide) {
                answered += 1;
            }
            (message, answered)
        }))
    }

    /// The container process state, and how many calls were answered.
    pub fn end(self) -> (Value, usize) {
        self.0.join().expect("the agent")
    }
}

fn take(socket: &UnixListener) -> (Value, OwnedFd) {
    let (connection, _) = socket.accept().expect("accept");
    let mut text = Vec::new();
    let mut fds: Vec<OwnedFd> = Vec::new();
    loop {
        let mut buffer = [0; 65536];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([i32; 4]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), flags)
            .expect("recvmsg");
        for message in got.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made them ours.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let bytes = got.bytes;
        text.extend_from_slice(&buffer[..bytes]);
        // Not to the end of the connection: runc keeps it while the container runs.
        if let Ok(state) = serde_json::from_slice(&text) {
            assert_eq!(fds.len(), 1, "one descriptor");
            return (state, fds.remove(0));
        }
        assert_ne!(bytes, 0, "{}", text.escape_ascii());
    }
}

/// False when the last process under the filter is gone.
fn answer(listener: &OwnedFd, decide: fn(i32) -> Answer) -> bool {
    let mut polled = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    unsafe { libc::poll(&mut polled, 1, 20_000) };
    if polled.revents & libc::POLLIN == 0 {
        assert_ne!(polled.revents, 0, "no call in 20 s");
        return false;
    }
    // SAFETY: all its fields are integers; the kernel wants zeros.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request fits the structure, which outlives the call.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &mut asked) } != 0 {
        // Its caller died in between.
        return true;
    }
    let (val, error, flags) = match decide(asked.data.nr) {
        Answer::Value(value) => (value, 0, 0),
        Answer::Errno(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, CONTINUE),
    };
    let mut response = libc::seccomp_notif_resp { id: asked.id, val, error, flags };
    // SAFETY: as above.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &mut response) };
    true
}

fn notifying(view: View, names: &[&str]) -> Container {
    Container::new(view).edit(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
        });
    })
}

fn listening(c: Container) -> Container {
    let path = c.path("agent");
    c.edit(|spec| {
        spec["linux"]["seccomp"]["listenerPath"] = json!(path);
        spec["linux"]["seccomp"]["listenerMetadata"] = json!("of the test");
    })
}

/// Neither is a call that a runtime makes.
pub fn fake(number: i32) -> Answer {
    match i64::from(number) {
        libc::SYS_mkdir | libc::SYS_mkdirat => Answer::Errno(libc::EXFULL),
        _ => Answer::Value(4242),
    }
}

#[test]
fn an_agent_answers_for_the_kernel() {
    on_the_host(|view| {
        for new_privileges in [false, true] {
            let script = format!(
                "probe --call native {} 0; mkdir /tmp/x || echo refused",
                libc::SYS_getpgid
            );
            let c = listening(notifying(view, &["getpgid", "mkdir", "mkdirat"])).script(&script);
            let c = c.edit(|spec| {
                spec["process"]["noNewPrivileges"] = json!(!new_privileges);
                spec["annotations"] = json!({"colour": "green"});
            });
            let agent = Agent::at(&c.path("agent"), fake);
            let out = c.run().ok().prints("4242\n").prints("refused\n");
            assert!(out.stderr.contains("Exchange full"), "the agent's errno: {out:#?}");
            let (state, answered) = agent.end();
            assert!(answered >= 2, "{answered}");
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["metadata"], "of the test");
            assert!(state["ociVersion"].is_string() && state["pid"].as_i64() > Some(0), "{state}");
            let of = &state["state"];
            assert_eq!(
                [&of["id"], &of["status"], &of["bundle"]],
                [&json!(c.id), &json!("creating"), &json!(c.dir)]
            );
            assert_eq!(of["annotations"]["colour"], "green");
            assert_eq!(of["pid"], state["pid"]);
        }
    });
}

#[test]
fn an_exec_has_a_listener_of_its_own() {
    on_the_host(|view| {
        let c = listening(notifying(view, &["getpgid"])).sleeper();
        let path = c.path("agent");
        let first = Agent::at(&path, fake);
        c.run_detached();
        fs::remove_file(&path).expect("unlink");
        let second = Agent::at(&path, fake);
        let number = libc::SYS_getpgid.to_string();
        c.exec(["probe", "--call", "native", &number, "0"]).ok().prints("4242\n");
        let (state, answered) = second.end();
        assert_eq!((&state["state"]["status"], answered), (&json!("running"), 1));
        c.kill("KILL").ok();
        assert_eq!(first.end().1, 0);
    });
}

/// The listener reaches the agent before any call needs it, whatever the profile notifies of.
#[test]
fn handing_over_needs_no_call_that_the_filter_traps() {
    on_the_host(|view| {
        let names = [
            "sendmsg", "sendto", "recvmsg", "recvfrom", "read", "openat", "openat2", "close",
            "connect", "socket", "fcntl", "mmap", "brk", "execve",
        ];
        for new_privileges in [false, true] {
            let c = listening(notifying(view, &names)).args(["echo", "through"]);
            let c = c.edit(|spec| spec["process"]["noNewPrivileges"] = json!(!new_privileges));
            if !c.runtime.only_aril("runc's own threads need some of them") {
                return;
            }
            let path = c.path("agent");
            let agent = Agent::at(&path, |_| Answer::Continue);
            c.run().ok().prints("through\n");
            assert!(agent.end().1 > 3);
            fs::remove_file(&path).expect("unlink");
            let agent = Agent::at(&path, |_| Answer::Continue);
            c.create();
            c.start();
            c.wait_for("stopped");
            c.delete().silent();
            assert!(agent.end().1 > 3);
        }
    });
}

#[test]
fn nobody_waits_for_the_agent_to_read() {
    on_the_host(|view| {
        let c = listening(notifying(view, &["getpgid"])).args(["true"]);
        let _idle = UnixListener::bind(c.path("agent")).expect("bind");
        c.run().silent();
    });
}

#[test]
fn an_agent_that_is_not_there() {
    on_the_host(|view| {
        let c = listening(notifying(view, &["getpgid"])).args(["true"]);
        let path = c.path("agent");
        let connect = format!("connect {}", path.display());
        for call in [c.run_call(&[]), c.create_call(&[])] {
            let out = call.output();
            assert_ne!(out.code, Some(0), "{out:#?}");
            if c.runtime.is_aril() {
                out.says(&format!("{connect}: no such file or directory"));
            }
            c.leaves_nothing();
        }
        // A socket without a listener any more.
        drop(UnixListener::bind(&path).expect("bind"));
        let out = c.run();
        assert_ne!(out.code, Some(0), "{out:#?}");
        if c.runtime.is_aril() {
            out.says(&format!("{connect}: connection refused"));
        }
        c.leaves_nothing();
    });
}

#[test]
fn profiles_that_cannot_be_served() {
    on_the_host(|view| {
        let without = notifying(view, &["getpgid"]);
        let out = without.run();
        assert_ne!(out.code, Some(0), "{out:#?}");
        if without.runtime.is_aril() {
            out.says("seccomp listenerPath is not set");
        }
        without.leaves_nothing();
        let write = listening(notifying(view, &["write"]));
        let out = write.run();
        assert_ne!(out.code, Some(0), "{out:#?}");
        if write.runtime.is_aril() {
            out.says("SCMP_ACT_NOTIFY cannot be used for the write syscall");
        }
        write.leaves_nothing();
    });
}
