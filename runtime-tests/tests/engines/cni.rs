//! `aril-cni` where engines look for plugins, with the list of `docs/cni.md`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use runtime_tests::container::wait_until;
use runtime_tests::skip;

use crate::containerd::{Shim, with_containerd};
use crate::pages;
use crate::podman::{self, in_podman};
use crate::private::{Place, hide, privately};

/// Where containerd's client looks, and nothing else can be told.
const LISTS: &str = "/etc/cni/net.d";
const PLUGINS: &str = "/opt/cni/bin";

/// The plugin and its list, in directories that end with the test; whether there is one.
fn install(place: &Place) -> bool {
    let plugin = Path::new(&place.runtime()).with_file_name("aril-cni");
    if !plugin.is_file() {
        skip::unprepared(&format!("{} is missing: cargo build", plugin.display()));
        return false;
    }
    for (above, dir) in [("/etc/cni", LISTS), ("/opt", PLUGINS)] {
        hide(Path::new(above));
        fs::create_dir_all(dir).expect("a directory");
    }
    std::os::unix::fs::symlink(plugin, Path::new(PLUGINS).join("aril-cni")).expect("a link");
    let list = pages::block("cni.md", "json");
    fs::write(Path::new(LISTS).join("10-aril.conflist"), list).expect("the list");
    true
}

/// What is in the way of a link, an address or an attachment being gone.
fn left() -> String {
    let script = "ip -o link show type veth; find /run/aril/@cni -mindepth 1 2>/dev/null; \
                  find /run/aril/@network/leases -type f -o -type l 2>/dev/null";
    let out = Command::new("sh").args(["-c", script]).output().expect("sh");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What a server says.
fn ask(to: SocketAddr) -> std::io::Result<String> {
    let patience = Duration::from_secs(20);
    let mut server = TcpStream::connect_timeout(&to, patience)?;
    server.set_read_timeout(Some(patience))?;
    server.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    Ok(text)
}

/// Once it listens.
fn answers(to: SocketAddr) {
    let said = || ask(to).is_ok_and(|text| text.contains("hello"));
    wait_until(&format!("an answer from {to}"), said);
}

const SERVER: &str = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; \
                      exec busybox httpd -f -p 80 -h /tmp/www";

#[test]
fn containerds_client() {
    with_containerd("cni::containerds_client", Shim::Aril, |containerd, _daemon| {
        if !install(containerd.place) {
            return;
        }
        let run = |flags: &[&str], id: &str, script: &str| {
            containerd.run(&[&["--cni"], flags].concat(), id, &["sh", "-c", script])
        };
        // Out to the host, and gone with the end of the call.
        let listener = TcpListener::bind("0.0.0.0:81").expect("bind");
        let server = std::thread::spawn(move || {
            let (mut client, peer) = listener.accept().expect("accept");
            client.write_all(b"from the host\n").expect("write");
            peer.ip()
        });
        let script = "busybox ip -o -4 addr show eth0; busybox ip route; busybox nc 10.88.0.1 81 < /dev/null";
        let seen = run(&["--rm"], "c1", script).ok().stdout;
        for text in ["10.88.", "default via 10.88.0.1", "from the host"] {
            assert!(seen.contains(text), "{text}: {seen}");
        }
        let from = server.join().expect("the server").to_string();
        assert!(seen.contains(&from), "{from}: {seen}");
        wait_until("the end of the attachment", || left().is_empty());
        // In from the host. The client forgets what it has detached: we do not.
        run(&["-d"], "c2", SERVER).ok();
        let show = [
            "task",
            "exec",
            "--exec-id",
            "e",
            "c2",
            "busybox",
            "ip",
            "-o",
            "-4",
            "addr",
            "show",
            "eth0",
        ];
        let shown = containerd.ctr.ask(&show);
        let address = shown.split_whitespace().nth(3).and_then(|a| a.split('/').next());
        let address = address.expect("an address").parse().expect("an address");
        answers(SocketAddr::new(address, 80));
        containerd.ctr.run(&["task", "kill", "-s", "SIGKILL", "c2"]).ok();
        wait_until("the end", || containerd.status("c2") == "STOPPED");
        containerd.ctr.run(&["task", "rm", "c2"]);
        containerd.ctr.run(&["containers", "rm", "c2"]).ok();
        wait_until("the end of the link", || !left().contains("link/ether"));
        let state = containerd.place.path("aril-state");
        let aril = containerd.place.client(&containerd.place.runtime(), &["--root", &state]);
        if !left().is_empty() {
            aril.run(&["reconcile"]).ok().prints("its link is gone");
        }
        assert_eq!(left(), "");
    });
}

#[test]
fn podman() {
    privately("cni::podman", podman::TOOLS, |place| {
        if !install(place) {
            return;
        }
        let network = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{PLUGINS}\"]\n\
             network_config_dir = \"{LISTS}\"\n"
        );
        if podman::major_version(&place.client("podman", &[])) >= 5 {
            return skip::inapplicable("Podman from version 5 on has no CNI");
        }
        in_podman(place, &network, |podman, common| {
            // Without the word for no network.
            let common = &common[1..];
            let flags = ["run", "-d", "--name", "c", "--network", "web", "-p", "8080:80"];
            podman.run(&[&flags[..], common, &["box", "sh", "-c", SERVER]].concat()).ok();
            let inspected =
                ["inspect", "c", "--format", "{{.NetworkSettings.Networks.web.IPAddress}}"];
            let address = podman.ask(&inspected).parse().expect("an address");
            let published = |ip: [u8; 4]| SocketAddr::from((ip, 8080));
            for to in
                [SocketAddr::new(address, 80), published([127, 0, 0, 1]), published([10, 88, 0, 1])]
            {
                answers(to);
            }
            // Another one on the network, by its address; the same port is refused, with whose it is.
            let ask = format!("busybox wget -q -O - http://{address}/index.html");
            let other = ["run", "--rm", "--network", "web"];
            podman
                .run(&[&other[..], common, &["box", "sh", "-c", &ask]].concat())
                .ok()
                .prints("hello");
            let taken = ["run", "--rm", "--network", "web", "-p", "8080:81"];
            let refused = podman.run(&[&taken[..], common, &["box", "true"]].concat());
            assert_ne!(refused.code, Some(0));
            podman.run(&["stop", "-t", "0", "c"]).ok();
            wait_until("the end of the attachment", || left().is_empty());
            podman.run(&["start", "c"]).ok();
            answers(published([127, 0, 0, 1]));
            podman.run(&["rm", "-f", "-t", "0", "c"]).ok();
            wait_until("the end of the attachment", || left().is_empty());
        });
    });
}
