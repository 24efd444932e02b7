//! Standard streams: fifos, files, loggers, terminals.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;
use std::time::Duration;

use runtime_tests::container::{PATIENCE, wait_until};
use runtime_tests::{Container, View};

use crate::place::{Streams, fifo, place_for, reader, rest};
use crate::wire::{Client, out};

#[test]
fn fifos_carry_all_three_streams() {
    let script = "cat; echo problem >&2";
    let Some(place) = place_for(Container::new(View::Host).script(script)) else { return };
    let mut shim = place.start();
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| fifo(&place, name));
    let (output, errors) = (reader(&stdout), reader(&stderr));
    let mut input = OpenOptions::new().read(true).write(true).open(&stdin).expect("stdin");
    shim.run(&Streams { stdin, stdout, stderr, terminal: false });
    input.write_all(b"through\n").expect("input");
    // A client that goes is no end of the input; what CloseIO says is.
    drop(input);
    assert_eq!(shim.status(""), "running");
    let init = shim.init().number(3, 1);
    shim.client.ok("CloseIO", init);
    assert_eq!(shim.wait(""), 0);
    shim.finish();
    assert_eq!((rest(output).as_str(), rest(errors).as_str()), ("through\n", "problem\n"));
}

#[test]
fn an_exec_has_streams_of_its_own() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    let [stdin, stdout, stderr] = ["in", "out", "err"].map(|name| fifo(&place, name));
    let (output, _errors) = (reader(&stdout), reader(&stderr));
    let input = OpenOptions::new().read(true).write(true).open(&stdin).expect("stdin");
    let streams = Streams { stdin, stdout, stderr, terminal: false };
    shim.add("e", &["cat"], &streams);
    (&input).write_all(b"early").expect("input");
    drop(input);
    // Before there is anything to close.
    let closing = shim.exec("e").number(3, 1);
    if place.is_aril() {
        shim.client.ok("CloseIO", closing.clone());
    }
    let exec = shim.exec("e");
    let kept = OpenOptions::new().read(true).write(true).open(&streams.stdin).expect("stdin");
    (&kept).write_all(b" words").expect("input");
    shim.client.ok("Start", exec.clone());
    drop(kept);
    shim.client.ok("CloseIO", closing);
    assert_eq!(shim.wait("e"), 0);
    shim.client.ok("Delete", exec);
    assert!(rest(output).ends_with("words"));
    shim.finish();
}

/// containerd opens the streams of an exec in the background: a probe may have ended before.
#[test]
fn an_output_that_is_opened_late() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    if !place.is_aril() {
        return runtime_tests::skip::inapplicable(
            "containerd's shim closes both ends: the client waits for ever",
        );
    }
    let mut shim = place.start();
    shim.run(&Streams::default());
    for (id, script, expected) in [("says", "echo late", "late\n"), ("silent", "true", "")] {
        let stdout = fifo(&place, id);
        let streams = Streams { stdout: stdout.clone(), ..Streams::default() };
        shim.add(id, &["sh", "-c", script], &streams);
        let exec = shim.exec(id);
        shim.client.ok("Start", exec.clone());
        assert_eq!(shim.wait(id), 0);
        // Time for the end of the output, which the shim reads after that of the process or before.
        std::thread::sleep(Duration::from_millis(200));
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(std::fs::read_to_string(stdout)));
        let read = receiver.recv_timeout(PATIENCE).expect("an end of the output");
        assert_eq!(read.expect("the output"), expected);
        shim.client.ok("Delete", exec);
    }
    shim.finish();
}

#[test]
fn both_outputs_into_one_file() {
    let script = "echo one; echo two >&2";
    let Some(place) = place_for(Container::new(View::Host).script(script)) else { return };
    let mut shim = place.start();
    let log = place.container.path("logs/of/it");
    let uri = format!("file://{}", log.display());
    shim.run(&Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    shim.wait("");
    shim.finish();
    let text = std::fs::read_to_string(log).expect("the log");
    let mut lines: Vec<&str> = text.lines().collect();
    if !place.is_aril() {
        // Two threads copy: whoever comes first.
        lines.sort_unstable();
    }
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn a_logger_takes_both_outputs() {
    let script = "echo one; echo two >&2";
    let Some(place) = place_for(Container::new(View::Host).script(script)) else { return };
    let mut shim = place.start();
    let log = place.container.path("logged").display().to_string();
    let program = place.container.file(
        "logger",
        &format!(
            "#!/bin/sh\n\
             trap '' TERM\n\
             echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" > {log}\n\
             printf r >&5; exec 5>&-\n\
             cat <&3 >> {log}; cat <&4 >> {log}; echo end >> {log}\n"
        ),
    );
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("chmod");
    let uri = format!("binary://{}?tag=a%20b", program.display());
    shim.run(&Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() });
    shim.wait("");
    shim.finish();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("the logger's end", || said().ends_with("end\n"));
    let (mark, id) = (&place.container.mark, &place.container.id);
    assert_eq!(said(), format!("{mark} {id} tag a b\none\ntwo\nend\n"));
}

#[test]
fn a_logger_that_is_missing() {
    let Some(place) = place_for(Container::new(View::Host)) else { return };
    let mut shim = place.start();
    let uri = "binary:///nonexistent/logger".to_owned();
    let request = shim.request(&Streams { stdout: uri, ..Streams::default() });
    let text = shim.client.refused("Create", request).text;
    assert!(text.contains("/nonexistent/logger: no such file or directory"), "{text}");
    let init = shim.init();
    shim.client.send("Shutdown", init);
    wait_until("the shim's end", || runtime_tests::host::is_gone(shim.pid));
}

#[test]
fn a_terminal_is_relayed_and_resized() {
    let script = "stty size; read line; stty size; echo got $line; exit 4";
    let container = Container::new(View::Host).script(script);
    let container = container.edit(|spec| spec["process"]["terminal"] = true.into());
    let Some(place) = place_for(container) else { return };
    let mut shim = place.start();
    let [stdin, stdout] = ["in", "out"].map(|name| fifo(&place, name));
    let mut output = reader(&stdout);
    let mut input = OpenOptions::new().read(true).write(true).open(&stdin).expect("stdin");
    shim.create(&Streams { stdin, stdout, terminal: true, ..Streams::default() });
    let resize = |columns, rows| shim_size(&shim.init(), columns, rows);
    let (first, second) = (resize(70, 20), resize(90, 30));
    shim.client.ok("ResizePty", first);
    let init = shim.init();
    shim.client.ok("Start", init);
    let mut said = String::new();
    let mut until = |text: &str| {
        let mut bytes = [0; 256];
        while !said.contains(text) {
            let length = output.read(&mut bytes).expect("output");
            assert!(length > 0, "the end after {said:?}");
            said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    };
    until("20 70");
    shim.client.ok("ResizePty", second);
    input.write_all(b"word\n").expect("input");
    until("30 90");
    until("got word");
    assert_eq!(shim.wait(""), 4);
    shim.finish();
}

fn shim_size(init: &crate::wire::Out, columns: u64, rows: u64) -> crate::wire::Out {
    init.clone().number(3, columns).number(4, rows)
}

/// The answer says why; the container's own stderr stays empty, as under containerd's shim for runc.
#[test]
fn a_failure_is_not_written_to_the_containers_stderr() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    let bundle = place.another_bundle_with("second", |spec| {
        spec["process"]["args"] = serde_json::json!(["missing"]);
    });
    shim.run(&Streams::default());
    let [stdout, stderr] = ["out", "err"].map(|name| fifo(&place, name));
    let (output, errors) = (reader(&stdout), reader(&stderr));
    let streams = Streams { stdout, stderr, ..Streams::default() };
    shim.add("e", &["missing"], &streams);
    let exec = shim.exec("e");
    let refused = shim.client.refused("Start", exec.clone());
    assert!(refused.text.contains("executable file not found in $PATH"), "{}", refused.text);
    shim.client.ok("Delete", exec);
    assert_eq!((rest(output).as_str(), rest(errors).as_str()), ("", ""));
    let mut second = place.start_in("second", &bundle);
    let log = place.container.path("second-err");
    let stderr = format!("file://{}", log.display());
    let streams = Streams { stderr, ..Streams::default() };
    let create = second.request_for("second", &bundle, &streams, place.options());
    let refused = second.client.refused("Create", create);
    assert!(refused.text.contains("executable file not found in $PATH"), "{}", refused.text);
    assert_eq!(std::fs::read_to_string(log).expect("stderr"), "");
    second.client.send("Shutdown", out().bytes(1, "second"));
    wait_until("the second shim's end", || runtime_tests::host::is_gone(second.pid));
    shim.finish();
}

/// A client may send the process of config.json with another terminal than init has.
#[test]
fn the_request_decides_on_the_terminal_of_an_exec() {
    let Some(place) = place_for(Container::new(View::Host).sleeper()) else { return };
    let mut shim = place.start();
    shim.run(&Streams::default());
    for terminal in [false, true] {
        let name = format!("e{terminal}");
        let stdout = fifo(&place, &name);
        let output = reader(&stdout);
        let process = serde_json::json!({
            "args": ["sh", "-c", "test -t 1 && echo terminal || echo none"], "cwd": "/",
            "env": ["PATH=/bin"], "terminal": !terminal, "user": {"uid": 0, "gid": 0},
        });
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        let request = shim.exec(&name).number(3, terminal.into()).bytes(5, &stdout);
        let request = request.any(7, kind, process.to_string().as_bytes());
        shim.client.ok("Exec", request);
        let exec = shim.exec(&name);
        shim.client.ok("Start", exec.clone());
        shim.wait(&name);
        shim.client.ok("Delete", exec);
        let expected = if terminal { "terminal\r\n" } else { "none\n" };
        assert_eq!(rest(output), expected);
    }
    shim.finish();
}

/// A process that an exec leaves behind holds its output open: a Delete gets its answer all the same, and the client
/// the end of the output.
#[test]
fn an_output_that_somebody_keeps_open() {
    // Takes for itself the label that the kernel of most test hosts knows nothing of.
    const UNLABELLED: &str = "#!/bin/sh\n[ ! -f config.json ] || \
        sed -i 's/\"selinuxLabel\": *\"[^\"]*\"/\"selinuxLabel\":\"\"/' config.json\nexec RUNTIME \"$@\"\n";
    for label in ["", "system_u:system_r:container_t:s0"] {
        let edit = |spec: &mut serde_json::Value| spec["process"]["selinuxLabel"] = label.into();
        let container = Container::new(View::Host).sleeper().edit(edit);
        let Some(place) = place_for(container) else { return };
        let runtime = place.container.runtime.path.display().to_string();
        let script = UNLABELLED.replace("RUNTIME", &runtime);
        let script = place.container.file("unlabelled", &script);
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("chmod");
        let mut shim = place.start();
        let (id, dir) = (shim.id().to_owned(), place.container.dir.clone());
        let options = place.options_with(&script);
        let create = shim.request_for(&id, &dir, &Streams::default(), options);
        shim.client.ok("Create", create);
        let init = shim.init();
        shim.client.ok("Start", init);
        let [stdout, stderr] = ["out", "err"].map(|name| fifo(&place, name));
        let (output, _errors) = (reader(&stdout), reader(&stderr));
        let streams = Streams { stdout, stderr, ..Streams::default() };
        shim.add("e", &["sh", "-c", "sleep 1000 & echo said"], &streams);
        let exec = shim.exec("e");
        shim.client.ok("Start", exec.clone());
        assert_eq!(shim.wait("e"), 0);
        // Ten seconds at most; who asks meanwhile is answered.
        let mut other = Client::connect(&shim.socket);
        other.send("Delete", exec);
        assert_eq!(shim.status(""), "running");
        other.receive().expect("deleted");
        assert_eq!(rest(output), "said\n", "its end");
        shim.finish();
    }
}
