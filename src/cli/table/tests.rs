use std::path::Path;

use super::*;
use crate::cli::command::Resources;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn read(line: &str) -> Command {
    command(&words(line)).unwrap_or_else(|error| panic!("{line}: {}", error.error))
}

fn refusal(line: &str) -> String {
    match command(&words(line)) {
        Ok(command) => panic!("{line}: {command:?}"),
        Err(failure) => failure.error.to_string(),
    }
}

fn global(line: &str) -> (Global, Vec<OsString>) {
    globals(words(line)).unwrap_or_else(|error| panic!("{line}: {}", error.error))
}

fn edited(line: &str) -> (Exec, Edits) {
    match read(line) {
        Command::Exec(mut exec) => {
            let file = ExecProcess::File("".into());
            match std::mem::replace(&mut exec.process, file) {
                ExecProcess::Edited(edits) => (exec, *edits),
                other => panic!("{line}: {other:?}"),
            }
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_table_is_sound_and_every_verb_has_help() {
    plain("aril").args(global_flags()).debug_assert();
    for verb in VERBS {
        verb.table().debug_assert();
        let Command::Help(text) = read(&format!("{} --help", verb.name)) else { panic!() };
        assert!(text.contains(&format!("Usage: aril {}", verb.name)), "{text}");
        assert!(text.contains(verb.about), "{text}");
        assert!(help::overview().contains(verb.about));
        let width = text.lines().map(|line| line.chars().count()).max();
        assert!(width <= Some(110), "{text}");
    }
}

#[test]
fn every_verb_reads_all_of_its_flags() {
    for verb in VERBS {
        let mut line = verb.name.to_owned();
        for flag in (verb.flags)() {
            let long = flag.get_long().unwrap();
            line += &match (long, flag.get_action()) {
                // They exclude others.
                ("cpus" | "rm", _) => continue,
                ("env-file", _) => " --env-file /dev/null".to_owned(),
                ("sysctl", _) => " --sysctl a=b".to_owned(),
                ("ulimit", _) => " --ulimit core=7".to_owned(),
                (_, ArgAction::SetTrue) => format!(" --{long}"),
                ("format", _) => " --format json".to_owned(),
                ("signal", _) => " --signal HUP".to_owned(),
                ("interval", _) => " --interval 7s".to_owned(),
                ("tty" | "pause", _) => format!(" --{long}"),
                (long, _) => format!(" --{long} 7"),
            };
        }
        // The action that has the most flags.
        let (action, more) = match verb.name {
            "network" => (" create", verb.least),
            "mounts" => (" add", verb.least - 1),
            _ => ("", verb.least),
        };
        line += action;
        line += &" x".repeat(more);
        read(&line);
    }
}

#[test]
fn limits_by_flags() {
    let Command::Update { id, resources: Resources::Flags { limits, ignored, .. } } = read(
        "update --memory 512m --memory-swap -1 --cpu-quota -1 --pids-limit 0 --kernel-memory 1 x",
    ) else {
        panic!()
    };
    assert_eq!((id.as_str(), ignored), ("x", vec!["kernel-memory"]));
    assert_eq!(
        serde_json::to_value(limits).unwrap(),
        serde_json::json!({"memory": {"limit": 512 << 20, "swap": -1}, "cpu": {"quota": -1},
            "pids": {"limit": 0}})
    );
    assert_eq!(
        read("update -r - --memory nonsense x"),
        Command::Update { id: "x".into(), resources: Resources::Stdin }
    );
    let read = read("update --mem-bw-schema MB:0=10 --l3-cache-schema= x");
    let Command::Update { resources: Resources::Flags { rdt: Some(rdt), .. }, .. } = read else {
        panic!("{read:?}")
    };
    assert_eq!((rdt.l3_cache_schema(), rdt.mem_bw_schema()), (&None, &Some("MB:0=10".into())));
    assert!(refusal("update --cpu-share -1 x").starts_with("invalid value \"-1\" for flag"));
}

#[test]
fn dockers_names_and_runcs() {
    let limits = |line: &str| match read(line) {
        Command::Update { resources: Resources::Flags { limits, .. }, .. } => {
            serde_json::to_value(limits).unwrap()
        }
        Command::Run(run) => {
            serde_json::to_value(run.create.options.edits.limits.unwrap()).unwrap()
        }
        other => panic!("{line}: {other:?}"),
    };
    for verb in ["update", "run"] {
        let of = |flags: &str| limits(&format!("{verb} {flags} x"));
        assert_eq!(of("--cpu-shares 7")["cpu"], of("--cpu-share 7")["cpu"]);
        assert_eq!(of("--pids-limit 7")["pids"], of("--pids 7")["pids"]);
        assert_eq!(of("-m 1m")["memory"]["limit"], 1 << 20);
        let cpu = serde_json::json!({"quota": 150_000, "period": 100_000});
        assert_eq!(of("--cpus 1.5")["cpu"], cpu);
        assert_eq!(of("--cpuset-cpus 0-1")["cpu"]["cpus"], "0-1");
        let both = refusal(&format!("{verb} --cpus 1 --cpu-quota 5 x"));
        assert_eq!(both, "--cpus cannot be used together with --cpu-quota or --cpu-period");
    }
    let runcs = edited("exec --cwd /w --cap CAP_KILL --additional-gids 5 id sh").1;
    assert_eq!(edited("exec -w /w --cap-add kill --group-add 5 id sh").1, runcs);
    assert!(edited("exec -it id sh").1.tty);
    let Command::Run(run) = read("run --rm -it --cwd /w x") else { panic!() };
    assert_eq!(run.create.options.edits.workdir.as_deref(), Some(Path::new("/w")));
    assert_eq!(run.create.options.edits.tty, Some(true));
    assert_eq!(refusal("run --keep --rm x"), "--rm cannot be used together with --keep");
}

#[test]
fn intervals() {
    let Command::Events { interval, stats, .. } = read("events x") else { panic!() };
    assert_eq!((interval, stats), (Duration::from_secs(5), false));
    let Command::Stats { ids, once, .. } = read("stats a --no-stream b") else { panic!() };
    assert_eq!((ids, once), (vec!["a".to_owned(), "b".to_owned()], true));
    for none in ["0", "-1s", "0s"] {
        let text = refusal(&format!("events --interval {none} x"));
        assert_eq!(text, "duration interval must be greater than 0");
    }
}

#[test]
fn as_containerd_calls() {
    let (global, rest) = global(
        "--root /run/containerd/runc/k8s.io --debug --log /b/log.json --log-format json \
         --systemd-cgroup --rootless=false create --bundle /b --pid-file /b/init.pid \
         --console-socket /t/pty.sock --no-pivot --no-new-keyring id",
    );
    assert_eq!(global.root.path, Path::new("/run/containerd/runc/k8s.io"));
    assert_eq!(global.log.as_deref(), Some(Path::new("/b/log.json")));
    assert_eq!(global.log_format, log::Format::Json);
    assert_eq!((global.level, global.cgroup_manager), (log::Level::Debug, CgroupManager::Systemd));
    assert_eq!(global.rootless, Rootless::No);
    let Command::Create(create) = command(&rest).unwrap() else { panic!() };
    assert_eq!(create.id, "id");
    assert_eq!(create.bundle, Path::new("/b"));
    assert_eq!(create.handover.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
    assert_eq!(create.handover.console_socket.as_deref(), Some(Path::new("/t/pty.sock")));
    assert!(create.no_pivot && create.no_new_keyring && !create.timeline);

    let Command::Exec(exec) =
        read("exec --process /t/p --console-socket /s --detach --pid-file /b/e.pid id")
    else {
        panic!()
    };
    assert_eq!(exec.process, ExecProcess::File("/t/p".into()));
    assert!(exec.detach);
    assert_eq!(
        read("kill --all id 9"),
        Command::Kill { id: "id".into(), regex: false, signal: 9, all: true }
    );
    assert_eq!(
        read("delete --force id"),
        Command::Delete { id: "id".into(), regex: false, force: true }
    );
    assert_eq!(
        read("ps --format json id"),
        Command::Ps { id: "id".into(), format: Format::Json, options: vec![] }
    );
    let Command::Run(run) = read("run -no-subreaper -keep -d --bundle /b id") else { panic!() };
    assert!(run.no_subreaper && run.keep && run.detach);
}

#[test]
fn the_global_flags_end_at_the_verb() {
    let (global, rest) = global("-systemd-cgroup state --root /x id");
    assert_eq!(rest, words("state --root /x id"));
    assert_eq!(global.cgroup_manager, CgroupManager::Systemd);
    assert_eq!(
        command(&rest).unwrap_err().error.to_string(),
        "flag provided but not defined: --root: it belongs before the command: aril --root ... state"
    );
}

#[test]
fn asking_for_help_or_the_version() {
    assert_eq!(global("").1, ["help"]);
    assert_eq!(global("-h delete x").1, ["help"]);
    assert_eq!(global("--debug --version").1, ["version"]);
    assert_eq!(global("-v").1, ["version"]);
    assert_eq!(read("help"), Command::Help(help::overview()));
    assert_eq!(read("help run"), Command::Help(help::of(find("run").unwrap())));
    assert_eq!(read("run -h"), Command::Help(help::of(find("run").unwrap())));
    // Not while the verb does not exist: engines probe for it so.
    assert_eq!(refusal("checkpoint --help"), "No help topic for 'checkpoint'");
    assert_eq!(refusal("foo -h"), "No help topic for 'foo'");
}

#[test]
fn global_values() {
    assert_eq!(global("--criu /x --rootless true list").0.rootless, Rootless::Yes);
    assert_eq!(global("list").0.rootless, Rootless::Auto);
    assert_eq!(global("--log= list").0.log, None);
    let relative = global("--log l list").0.log.unwrap();
    assert_eq!(relative, std::env::current_dir().unwrap().join("l"));
    for (line, text) in [
        ("--log-format=xml list", "invalid log-format: xml"),
        ("--root", "flag needs an argument: --root"),
        ("--nope list", "flag provided but not defined: --nope: `aril --help` lists the flags"),
        ("--rootless=x list", "invalid value \"x\" for flag --rootless: want true, false or auto"),
    ] {
        assert_eq!(globals(words(line)).unwrap_err().error.to_string(), text);
    }
}

#[test]
fn cgroup_managers_and_log_levels() {
    use CgroupManager::{Cgroupfs, Disabled, Systemd};
    for (line, manager) in [
        ("list", Cgroupfs),
        ("--cgroup-manager cgroupfs list", Cgroupfs),
        ("--cgroup-manager=systemd list", Systemd),
        ("--cgroup-manager disabled list", Disabled),
        ("--systemd-cgroup --cgroup-manager=disabled list", Disabled),
        ("--systemd-cgroup list", Systemd),
    ] {
        assert_eq!(global(line).0.cgroup_manager, manager, "{line}");
    }
    for (line, level) in [
        ("--log-level debug list", log::Level::Debug),
        ("--log-level error list", log::Level::Error),
        ("--log-level error --debug list", log::Level::Debug),
        ("list", log::Level::Warning),
    ] {
        assert_eq!(global(line).0.level, level, "{line}");
    }
    let error = globals(words("--cgroup-manager=x list")).unwrap_err().error.to_string();
    assert!(error.ends_with("want cgroupfs, systemd or disabled"), "{error}");
}

#[test]
fn operands_are_counted() {
    for (line, text) in [
        ("state", "aril: \"state\" requires exactly 1 argument(s)"),
        ("state a b", "aril: \"state\" requires exactly 1 argument(s)"),
        ("list a", "aril: \"list\" requires exactly 0 argument(s)"),
        ("exec", "aril: \"exec\" requires a minimum of 1 argument(s)"),
        ("kill", "aril: \"kill\" requires a minimum of 1 argument(s)"),
        ("kill a 9 b", "aril: \"kill\" requires a maximum of 2 argument(s)"),
        ("nope", "unknown command \"nope\""),
    ] {
        assert!(refusal(line).starts_with(&format!("{text}: ")), "{}", refusal(line));
    }
    assert!(refusal("state").ends_with(": aril state [flags] <container-id>"));
}

#[test]
fn mistyped_words_get_one_line_with_advice() {
    for (line, advice) in [
        ("strat x", "did you mean \"start\"?"),
        ("rm x", "use `aril delete`"),
        ("ls", "use `aril list`"),
        ("inspect x", "use `aril state`"),
        ("stop x", "use `aril kill`"),
        ("logs x", "Aril keeps no output"),
        ("cp x:/a b", "`aril export ID -`"),
        ("pull alpine", "Aril has no registry client"),
        ("ps -a", "`aril list` lists all containers"),
        ("ps", "`aril list` lists the containers"),
        ("list -a", "`aril list` lists all containers"),
        ("run --memroy 1m x", "did you mean --memory? `aril run --help` lists the flags"),
        ("run --mem 1m x", "did you mean --memory?"),
        ("run --name x --rootfs r", "the name is a word: aril run"),
        ("run --log x y", "it belongs before the command: aril --log ... run"),
        ("delete --focre x", "did you mean --force?"),
        ("exec --privileged x sh", "--cap-add ALL"),
        ("run --privileged x", "--cap-add NAME or ALL, --device PATH"),
        ("run --ulimit files=3 x", "want NAME=SOFT[:HARD], such as nofile=1024:2048"),
        ("run --shm-size 0 x", "want a size such as 64m"),
    ] {
        let text = refusal(line);
        assert!(text.contains(advice) && !text.contains('\n'), "{line}: {text}");
    }
}

#[test]
fn words_after_the_id() {
    // Of exec, kill and ps they are data; else they may still be flags.
    assert_eq!(edited("exec -d id ls -la --tty").1.args, ["ls", "-la", "--tty"]);
    assert_eq!(
        read("ps id -o pid,comm"),
        Command::Ps {
            id: "id".into(),
            format: Format::Table,
            options: vec!["-o".into(), "pid,comm".into()],
        }
    );
    assert_eq!(refusal("kill id -9"), "unknown signal \"-9\"");
    assert_eq!(
        read("delete id -f"),
        Command::Delete { id: "id".into(), regex: false, force: true }
    );
}

#[test]
fn the_edits_of_exec() {
    let (exec, edits) = edited(
        "exec --cwd /w -e A=1,2 --env B=2 -t=false -u 7:8 -g 1 -g 2 --process-label l \
         --apparmor p --no-new-privs --cap CAP_KILL -c CAP_CHOWN --cgroup sub --preserve-fds 3 \
         --ignore-paused id sh",
    );
    assert_eq!(exec.id, "id");
    assert!(exec.ignore_paused && !exec.detach);
    assert_eq!(exec.cgroups, ["sub"]);
    assert_eq!(exec.handover.preserve_fds, 3);
    let expected = Edits {
        args: vec!["sh".into()],
        cwd: Some("/w".into()),
        env: vec!["A=1,2".into(), "B=2".into()],
        tty: false,
        user: Some("7:8".to_owned()),
        additional_gids: vec![1, 2],
        process_label: Some("l".into()),
        apparmor: Some("p".into()),
        no_new_privs: true,
        capabilities: vec!["CAP_KILL".into(), "CAP_CHOWN".into()],
    };
    assert_eq!(edits, expected);
}

#[test]
fn a_terminal_is_asked_for_refused_or_not_mentioned() {
    assert!(edited("exec -t id sh").1.tty);
    assert!(!edited("exec --tty=0 id sh").1.tty);
    assert!(!edited("exec id sh").1.tty);
}

#[test]
fn the_last_of_a_repeated_value_counts() {
    assert_eq!(edited("exec --cwd /a --cwd /b id sh").1.cwd.as_deref(), Some("/b"));
}

#[test]
fn bad_values() {
    for (line, text) in [
        ("exec id", "exec args cannot be empty"),
        (
            "exec -g 1,2 id sh",
            "invalid value \"1,2\" for flag --group-add: want a number; repeat it for more",
        ),
        ("run --preserve-fds -1 id", "invalid value \"-1\" for flag --preserve-fds: want a number"),
        ("kill id NOPE", "unknown signal \"NOPE\""),
        ("list -f xml", "invalid format option: \"xml\""),
        ("run --pid-file", "flag needs an argument: --pid-file"),
    ] {
        assert_eq!(refusal(line), text);
    }
}

#[test]
fn signals_by_name_and_number() {
    let signal = |line| match read(line) {
        Command::Kill { signal, .. } => signal,
        other => panic!("{other:?}"),
    };
    assert_eq!(signal("kill id"), libc::SIGTERM);
    assert_eq!(signal("kill id kill"), libc::SIGKILL);
    assert_eq!(signal("kill id 0"), 0);
    assert_eq!(signal("kill -s HUP id"), libc::SIGHUP);
    assert_eq!(signal("kill --signal=SIGRTMIN+3 id"), 37);
    assert_eq!(refusal("kill --signal HUP id KILL"), "the signal is given twice");
}

#[test]
fn paths_are_absolute_before_anybody_moves() {
    let here = std::env::current_dir().unwrap();
    let Command::Create(create) = read("create --pid-file p --console-socket ./s id") else {
        panic!()
    };
    assert_eq!(create.bundle, here);
    assert_eq!(create.handover.pid_file, Some(here.join("p")));
    assert_eq!(create.handover.console_socket, Some(here.join("s")));
    assert_eq!(read("plan b"), Command::Plan { bundle: here.join("b") });
    assert_eq!(read("plan -b b"), Command::Plan { bundle: here.join("b") });
    let empty = ["create", "--bundle=", "--pid-file=", "id"].map(OsString::from);
    let Command::Create(create) = command(&empty).unwrap() else { panic!() };
    assert_eq!((create.bundle, create.handover.pid_file), (here, None));
}

#[test]
fn bytes_that_are_not_text() {
    use std::os::unix::ffi::OsStringExt;
    let raw = || OsString::from_vec(b"\xff".to_vec());
    let create = ["create".into(), "--pid-file".into(), raw(), "id".into()];
    assert!(command(&create).is_ok());
    let exec = ["exec".into(), "id".into(), raw()];
    assert_eq!(
        command(&exec).unwrap_err().error.to_string(),
        "argument \"\\xFF\" is not valid UTF-8"
    );
    let env = ["exec".into(), "--env".into(), raw(), "id".into(), "sh".into()];
    assert!(command(&env).unwrap_err().error.to_string().ends_with("for flag --env: want UTF-8"));
}
