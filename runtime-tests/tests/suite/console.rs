//! Terminals: handed to the engine over a socket, or copied in the foreground; and the other
//! descriptors that are passed on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use runtime_tests::container::wait_until;
use runtime_tests::terminal::{self, Receiver};
use runtime_tests::{Container, View, in_each_view, on_the_host};
use serde_json::json;

fn with_terminal(view: View) -> Container {
    Container::new(view).edit(|spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    })
}

#[test]
fn the_socket_gets_one_descriptor() {
    in_each_view(|view| {
        let c = with_terminal(view).script("read line; echo \"got $line\"; stty size; tty");
        let socket = Receiver::at(&c.path("console"));
        let path = c.path("console").display().to_string();
        c.create_call(&["--console-socket", &path]).output().silent();
        let message = socket.take();
        assert_eq!((message.fds.len(), message.more), (1, 0), "one descriptor, nothing after");
        assert!((1..=64).contains(&message.text.len()), "{:?}", message.text);
        let master = &message.fds[0];
        let target = fs::read_link(format!("/proc/self/fd/{}", master.as_raw_fd())).expect("link");
        assert!(target.ends_with("ptmx"), "{target:?}");
        assert_eq!(terminal::size(master), (33, 99), "set before it was sent");
        c.start();
        terminal::type_in(master, "hello\n");
        let shown = terminal::read_to_end(master);
        for text in ["got hello\r\n", "33 99\r\n", "/dev/pts/0\r\n"] {
            assert!(shown.contains(text), "{text:?} in {shown:?}");
        }
    });
}

#[test]
fn exec_uses_a_socket_too() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let socket = Receiver::at(&c.path("console"));
        let path = c.path("console").display().to_string();
        c.call(["exec", "-d", "-t", "--console-socket", &path, &c.id, "tty"]).output().silent();
        let message = socket.take();
        assert_eq!((message.fds.len(), message.more), (1, 0));
        let shown = terminal::read_to_end(&message.fds[0]);
        assert!(shown.starts_with("/dev/pts/"), "of the container's own devpts: {shown:?}");
    });
}

/// config.json says what the container's own process has.
#[test]
fn an_exec_has_a_terminal_only_where_it_asks_for_one() {
    on_the_host(|view| {
        let c = with_terminal(view).sleeper();
        let socket = Receiver::at(&c.path("console"));
        let path = c.path("console").display().to_string();
        c.create_call(&["--console-socket", &path]).output().silent();
        let _master = socket.take();
        c.start();
        let look = "for fd in 0 1 2; do test -t $fd && echo $fd; done; true";
        c.exec(["sh", "-c", look]).silent();
        c.call(["exec", "--detach", &c.id, "true"]).output().silent();
        let process = json!({"cwd": "/", "args": ["sh", "-c", look], "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0}});
        let file = c.file("process.json", &process.to_string()).display().to_string();
        c.call(["exec", "--process", &file, &c.id]).output().silent();
        c.kill("KILL").silent();
    });
}

#[test]
fn foreground_terminal_is_copied_and_resized() {
    in_each_view(|view| {
        let c = with_terminal(view).script(
            "trap 'stty size' WINCH; stty size; echo ready; \
             while ! read -t 1 line; do :; done; echo \"got $line\"; exit 6",
        );
        let (master, slave) = terminal::open(40, 120);
        let run = c.run_call(&[]).on_terminal(&slave).spawn();
        let shown = terminal::read_until(&master, "ready");
        assert!(shown.contains("40 120"), "the size of the caller's terminal: {shown:?}");
        terminal::resize(&master, 41, 121);
        terminal::read_until(&master, "41 121");
        terminal::type_in(&master, "hello\r");
        terminal::read_until(&master, "got hello");
        run.wait().exits(6);
        let echo = nix::sys::termios::tcgetattr(&slave).expect("termios").local_flags;
        assert!(
            echo.contains(
                nix::sys::termios::LocalFlags::ECHO | nix::sys::termios::LocalFlags::ICANON
            ),
            "the caller's terminal is as it was"
        );
        c.leaves_nothing();
    });
}

#[test]
fn exec_in_the_foreground() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        c.run_detached();
        let (master, slave) = terminal::open(40, 120);
        let exec = c
            .call(["exec", "-t", &c.id, "sh", "-c", "tty; stty size; echo end; exit 8"])
            .on_terminal(&slave)
            .spawn();
        let shown = terminal::read_until(&master, "end");
        assert!(shown.contains("/dev/pts/0"), "{shown:?}");
        exec.wait().exits(8);
    });
}

#[test]
fn no_terminal_without_tty() {
    on_the_host(|view| {
        let c = Container::new(view).script("tty; test -c /dev/console || echo no console");
        let out = c.run();
        assert_eq!(out.stdout, "not a tty\nno console\n");
    });
}

#[test]
fn descriptors_are_preserved_and_others_are_not() {
    in_each_view(|view| {
        let c = Container::new(view)
            .script("cat <&3; cat <&4; ls /proc/self/fd | wc -l; ls -l /proc/self/fd");
        let (three, four) = (c.file("three", "third\n"), c.file("four", "fourth\n"));
        let redirected = format!(
            "exec 3<{three} 4<{four} 7<{three} 9<{four}; exec \"$@\"",
            three = three.display(),
            four = four.display()
        );
        let out = c.run_call(&["--preserve-fds", "2"]).in_shell(&redirected).ok();
        assert!(out.stdout.starts_with("third\nfourth\n"), "{out:?}");
        // 0 to 4, and the listing's own.
        assert_eq!(out.stdout.lines().nth(2), Some("6"), "{}", out.stdout);
    });
}

/// As with crun; with runc, descriptors of Go's runtime may be in the gaps.
#[test]
fn preserved_descriptors_may_have_gaps() {
    const LOOK: &str = "for i in 3 4 5 6 7; do readlink /proc/$$/fd/$i || echo none; done";
    in_each_view(|view| {
        let c = Container::new(view).script(LOOK);
        if !c.runtime.only_aril("Go's runtime opens descriptors of its own before runc looks") {
            return;
        }
        let (five, six) = (c.file("five", ""), c.file("six", ""));
        let redirected = format!(
            "exec 3<&- 4<&- 5<{} 6<{} 7<&- 8<&-; exec \"$@\"",
            five.display(),
            six.display()
        );
        let seen = |passed: usize| -> String {
            let files = [None, None, Some(&five), Some(&six), None];
            let line = |(n, file): (usize, &Option<&std::path::PathBuf>)| {
                let file = file.filter(|_| n < passed).map(|f| f.display().to_string());
                file.unwrap_or("none".to_owned()) + "\n"
            };
            files.iter().enumerate().map(line).collect()
        };
        for (asked, passed) in [(3, 3), (4, 4), (5, 4), (1000, 4), (2, 0)] {
            let flags = ["--preserve-fds", &asked.to_string()];
            let out = c.run_call(&flags).in_shell(&redirected).ok();
            assert_eq!(out.stdout, seen(passed), "{asked}");
        }
        let c = c.sleeper();
        c.run_detached();
        let exec = c.call(["exec", "--preserve-fds", "4", &c.id, "sh", "-c", LOOK]);
        assert_eq!(exec.in_shell(&redirected).ok().stdout, seen(4));
        // The log, which is opened early, has a number of its own.
        let log = c.path("log");
        let log = log.to_str().expect("utf-8");
        let exec = ["--log", log, "exec", "--preserve-fds", "4", &c.id, "sh", "-c", LOOK];
        assert_eq!(c.call(exec).in_shell(&redirected).ok().stdout, seen(4));
    });
}

#[test]
fn sockets_of_activation() {
    on_the_host(|view| {
        let c = Container::new(view).script("cat <&3; echo \"$LISTEN_FDS $LISTEN_PID\"; cat <&4");
        let (three, four) = (c.file("three", "third\n"), c.file("four", "fourth\n"));
        let redirected = format!(
            "exec 3<{} 4<{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
            three.display(),
            four.display()
        );
        let out = c.run_call(&["--preserve-fds", "1"]).in_shell(&redirected).ok();
        assert_eq!(out.stdout, "third\n1 1\nfourth\n");
    });
}

#[test]
fn descriptors_of_another_process_are_not_taken() {
    on_the_host(|view| {
        let c = Container::new(view).script("echo \"<$LISTEN_FDS>\"; ls /proc/self/fd | wc -l");
        let file = c.file("three", "third\n");
        let script = format!("exec 3<{}; LISTEN_FDS=1 LISTEN_PID=1 exec \"$@\"", file.display());
        let out = c.run_call(&[]).in_shell(&script).ok();
        assert_eq!(out.stdout, "<>\n4\n");
    });
}

#[test]
fn readiness_is_passed_on() {
    in_each_view(|view| {
        let c = Container::new(view).script(
            "test -d /run/notify && echo \"$NOTIFY_SOCKET\"; \
             probe --notify \"$NOTIFY_SOCKET\" 'READY=1'; sleep 1000",
        );
        let host = UnixDatagram::bind(c.path("notify")).expect("bind");
        host.set_read_timeout(Some(runtime_tests::container::PATIENCE)).expect("timeout");
        let create = c.create_call(&[]).env("NOTIFY_SOCKET", c.path("notify")).ok();
        assert!(create.stderr.is_empty(), "{create:?}");
        let start = c.call(["start", &c.id]).env("NOTIFY_SOCKET", c.path("notify")).spawn();
        let mut buffer = [0; 4096];
        let mut heard = String::new();
        // `start` waits for an answer to a barrier where it sends one; runc sends none.
        let awaited = ["READY=1", "MAINPID=", "BARRIER=1"];
        let awaited = if c.runtime.is_aril() { &awaited[..] } else { &awaited[..2] };
        while !awaited.iter().all(|word| heard.contains(word)) {
            let length = host.recv(&mut buffer).expect("a notification");
            heard += &String::from_utf8_lossy(&buffer[..length]);
            heard.push('\n');
        }
        assert!(heard.contains(&format!("MAINPID={}", c.pid())), "{heard}");
        start.wait().ok();
        let said = fs::read_to_string(c.path("calls/0.out")).expect("the container's output");
        assert_eq!(said, "/run/notify/notify.sock\n");
    });
}

#[test]
fn a_pidfd_for_the_engine() {
    on_the_host(|view| {
        let c = Container::new(view).sleeper();
        if !c.runtime.only_aril("--pidfd-socket came with runc 1.2") {
            return;
        }
        for (call, word) in [("create", "standard"), ("exec", "setns")] {
            let socket = Receiver::at(&c.path(call));
            let path = c.path(call).display().to_string();
            let flags = ["--pidfd-socket", path.as_str()];
            match call {
                "create" => c.create_call(&flags).output().silent(),
                _ => c
                    .call(["exec", "-d", flags[0], flags[1], &c.id, "sleep", "1"])
                    .output()
                    .silent(),
            };
            let message = socket.take();
            assert_eq!((message.fds.len(), message.more), (1, 0));
            assert_eq!(message.text, word.as_bytes());
            let info = format!("/proc/self/fdinfo/{}", message.fds[0].as_raw_fd());
            let info = fs::read_to_string(info).expect("fdinfo");
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
            let pid: i32 = pid.trim().parse().expect("a pid");
            assert!(call == "exec" || pid == c.pid());
        }
    });
}

#[test]
fn stdio_of_the_container_is_the_callers() {
    on_the_host(|view| {
        let c = Container::new(view).script("cat");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut ours = ours;
        let run = c.run_call(&[]).stdin(std::os::fd::OwnedFd::from(theirs)).spawn();
        ours.write_all(b"over a socket\n").expect("write");
        wait_until("the echo", || run.stdout() == "over a socket\n");
        ours.shutdown(std::net::Shutdown::Both).expect("shutdown");
        run.wait().ok();
        let mut rest = Vec::new();
        let _ = ours.read_to_end(&mut rest);
    });
}
