//! A config.json with everything in it, edited: what is parsed is planned or refused.
#![no_main]

use aril_fuzz::{Choices, Host};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const EVERYTHING: &str = include_str!("../seeds/config/everything.json");

/// Text that means something somewhere.
const WORDS: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "/proc",
    "/proc/self/fd/7",
    "/sys",
    "/dev",
    "/dev/pts",
    "../../etc",
    "a",
    "a/b",
    "0",
    "-1",
    "4294967296",
    "\u{0}",
    "\n",
    "\u{fffd}",
    "bind",
    "rbind",
    "proc",
    "tmpfs",
    "sysfs",
    "cgroup",
    "cgroup2",
    "overlay",
    "ro",
    "rro",
    "rec",
    "idmap",
    "ridmap",
    "rshared",
    "mode=755",
    "size=1k",
    "user",
    "mount",
    "network",
    "pid",
    "time",
    "ipc",
    "uts",
    "net.ipv4.ip_forward",
    "kernel.shmmax",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_ALLOW",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_ARCH_X32",
    "RLIMIT_NOFILE",
    "CAP_SYS_ADMIN",
    "SCHED_FIFO",
    "0-3,7",
    "0-18446744073709551615",
    "8:0",
    "a:b=c",
    "HOME=/root",
    "io.weight",
    "cpu.max",
    "rwm",
    "c",
    "b",
    "p",
    "MPOL_BIND",
    "LINUX32",
    "SECCOMP_FILTER_FLAG_LOG",
    "io.aril.overlay",
    "org.systemd.property.X",
];

/// Ours, with a value that means something.
const ANNOTATIONS: &[(&str, &[&str])] = &[
    (
        "io.aril.landlock",
        &[
            r#"{"fs":[{"paths":["/usr","/etc"],"access":"read,execute"}],"tcp":{"bind":[80],"connect":[]}}"#,
            r#"{"mode":"required","scope":["signal","abstract-unix-socket"]}"#,
            "{}",
        ],
    ),
    ("io.aril.network", &["none", "host", "bridge", "bridge:a", "container:b", "ns:/run/n", "pasta"]),
    ("io.aril.network.publish", &["8080:80", "127.0.0.1:53:53/udp,[::1]:1-9:11-19", "1:2:3:4"]),
    ("io.aril.network.address", &["10.0.0.2", "10.0.0.2,fd00::2", "10.0.0.2,10.0.0.3"]),
    ("io.aril.network.dns", &["1.1.1.1,::1", "x"]),
    ("io.aril.network.dns-search", &["a.b,c", ""]),
    ("io.aril.network.hosts", &["a:1.2.3.4,b:::1", "a"]),
    ("io.aril.network.rate", &["10mbit", "in=10mbit,out=1gbit", "in=x"]),
    ("io.aril.rootfs.layers", &["/a:/b", r#"["/a","b"]"#, ":", ""]),
    ("io.aril.rootfs.upper", &["ephemeral", "tmpfs:1m", "./u", r#"{"upper":"/u","work":"/w"}"#]),
    ("io.aril.rootfs.show", &["true", "x"]),
    ("io.aril.userns", &["auto", "auto:1", "auto:x"]),
    ("org.systemd.property.CPUWeight", &["uint64 100", "uint64 -1", "'x"]),
    ("org.systemd.property.TimeoutStopSec", &["1.5", "@as ['a', 'b']"]),
];

fn annotate(document: &mut Value, choices: &mut Choices) {
    let (key, values) = choices.of(ANNOTATIONS);
    let value = if choices.byte() % 4 == 0 { word(choices) } else { choices.of(values).to_owned() };
    document["annotations"][key] = value.into();
}

fn word(choices: &mut Choices) -> String {
    match choices.byte() % 8 {
        0 => "x".repeat(usize::from(choices.byte()) * 40),
        1 => format!("{}/{}", word(choices), word(choices)),
        _ => choices.of(WORDS).to_owned(),
    }
}

fn value(choices: &mut Choices) -> Value {
    const NUMBERS: &[i64] = &[
        0,
        1,
        -1,
        2,
        7,
        255,
        256,
        65535,
        65536,
        i32::MAX as i64,
        u32::MAX as i64,
        i64::MAX,
        i64::MIN,
    ];
    match choices.byte() % 10 {
        0 => Value::Null,
        1 => json!(choices.byte() % 2 == 0),
        2 => json!([]),
        3 => json!({}),
        4 | 5 => json!(choices.of(NUMBERS)),
        6 => json!(u64::MAX - u64::from(choices.byte())),
        7 => json!(1.5),
        _ => json!(word(choices)),
    }
}

fn size(node: &Value) -> usize {
    1 + match node {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// The node with this number, counted from the root, each before what it holds.
fn nth(node: &mut Value, number: usize) -> &mut Value {
    if number == 0 {
        return node;
    }
    let mut left = number - 1;
    let children: Vec<&mut Value> = match node {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => unreachable!("beyond the document"),
    };
    for child in children {
        let within = size(child);
        if left < within {
            return nth(child, left);
        }
        left -= within;
    }
    unreachable!("beyond the document")
}

fn edit(document: &mut Value, choices: &mut Choices) {
    if choices.byte() % 8 == 0 && document["annotations"].is_object() {
        return annotate(document, choices);
    }
    let nodes = size(document);
    let (from, to) = (choices.below(nodes), choices.below(nodes));
    let operation = choices.byte() % 6;
    if operation == 0 {
        let copy = nth(document, from).clone();
        // Not itself into itself without end.
        if size(&copy) < 200 && nodes < 5000 {
            *nth(document, to) = copy;
        }
        return;
    }
    let node = nth(document, to);
    match (operation, node) {
        (1, Value::Array(list)) if !list.is_empty() => {
            let again = choices.of(list);
            list.push(again);
        }
        (1, Value::Object(map)) => {
            map.insert(word(choices), value(choices));
        }
        (2, Value::Array(list)) if !list.is_empty() => {
            list.remove(choices.below(list.len()));
        }
        (2, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(choices.below(map.len())).expect("a key").clone();
            map.remove(&key);
        }
        (_, node) => *node = value(choices),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut document: Value = serde_json::from_str(EVERYTHING).expect("the base");
    let mut choices = Choices(bytes);
    let host = choices.of(&Host::ALL);
    for _ in 0..20 {
        if choices.is_empty() {
            break;
        }
        edit(&mut document, &mut choices);
    }
    if let Ok(config) = aril::spec::parse(document.to_string().into_bytes()) {
        aril_fuzz::plan(&config.spec, host);
    }
});
