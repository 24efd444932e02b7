//! `layout PROGRAM ROOTFS OUTPUT`: writes the linker script that places the functions of a start beside each other.
//!
//! `PROGRAM` is an `aril` with its symbols. Each verb that engines call runs step by step under ptrace(2), and each
//! function that was entered becomes a line of the script. A page of a program's file is mapped when it is first
//! touched, together with its neighbours: functions that lie apart cost more of these page faults, and more memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

const HEADER: &str = "/* Functions that the verbs of engines execute, beside each other: fewer page faults, less memory.\n   \
    `make layout` writes this file. A name that no function has any more changes nothing. */\n";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [program, rootfs, output] = args.as_slice() else {
        bail!("three arguments are needed: PROGRAM ROOTFS OUTPUT");
    };
    let program = fs::canonicalize(program).with_context(|| program.clone())?;
    let program = program.to_str().context("a path in UTF-8")?;
    let symbols = symbols(program)?;
    let scratch = std::env::temp_dir().join(format!("aril-layout-{}", std::process::id()));
    let entered = in_both_views(program, Path::new(rootfs), &scratch);
    let _ = fs::remove_dir_all(&scratch);
    let script = script(&symbols, &entered?);
    println!("{output}: {} functions", script.lines().filter(|l| l.contains("*(")).count());
    fs::write(output, script).with_context(|| format!("write {output}"))
}

/// First address to size and name, of each function.
type Symbols = BTreeMap<u64, (u64, String)>;

fn symbols(program: &str) -> Result<Symbols> {
    let nm = Command::new("nm").args(["--defined-only", "-S", program]).output();
    let nm = nm.context("execute nm, which comes with a C compiler")?;
    let text = String::from_utf8_lossy(&nm.stdout);
    let symbols: Symbols = text.lines().filter_map(symbol).collect();
    ensure!(!symbols.is_empty(), "{program} has no symbols: build it with strip = \"none\"");
    Ok(symbols)
}

/// Parses a line of nm: address, size, type, name.
fn symbol(line: &str) -> Option<(u64, (u64, String))> {
    let words: Vec<&str> = line.split(' ').collect();
    let [address, size, "t" | "T" | "w" | "W", name] = words[..] else { return None };
    let hexadecimal = |word| u64::from_str_radix(word, 16).ok();
    Some((hexadecimal(address)?, (hexadecimal(size)?, name.to_owned())))
}

/// Addresses of the instructions that the verbs execute on this host, and with cgroup2 alone at /sys/fs/cgroup.
fn in_both_views(program: &str, rootfs: &Path, scratch: &Path) -> Result<BTreeSet<u64>> {
    let mut entered = verbs(program, rootfs, scratch)?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(mount namespace): root is needed")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let kind = Some("cgroup2");
    mount(kind, "/sys/fs/cgroup", kind, MsFlags::empty(), None::<&str>).context("mount cgroup2")?;
    entered.extend(verbs(program, rootfs, scratch)?);
    Ok(entered)
}

fn verbs(program: &str, rootfs: &Path, scratch: &Path) -> Result<BTreeSet<u64>> {
    let bundle = |name: &str, args: &[&str]| -> Result<String> {
        let bundle = scratch.join(name);
        fs::create_dir_all(&bundle)?;
        let _ = fs::remove_file(bundle.join("config.json"));
        let spec = Command::new(program).arg("spec").current_dir(&bundle).status()?;
        ensure!(spec.success(), "{program} spec: {spec}");
        let config = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
        spec["root"]["path"] = json!(fs::canonicalize(rootfs)?);
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        fs::write(&config, spec.to_string())?;
        Ok(bundle.display().to_string())
    };
    let (short, long) = (bundle("short", &["/bin/true"])?, bundle("long", &["sleep", "1000"])?);
    let root = scratch.join("state").display().to_string();
    let call = |words: &[&str]| {
        let mut call = Command::new("sh");
        call.args(["-c", "kill -STOP $$; exec \"$@\"", "sh", program]);
        call.args(["--root", &root]).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        call
    };
    let [brief, lasting] =
        ["brief", "lasting"].map(|name| format!("layout-{name}-{}", std::process::id()));
    let mut entered = BTreeSet::new();
    let mut all = || -> Result<()> {
        for (words, stepped) in [
            (&["run", "--bundle", &short, &brief][..], true),
            (&["create", "--bundle", &long, &lasting], false),
            (&["start", &lasting], true),
            (&["state", &lasting], true),
            (&["exec", &lasting, "/bin/true"], true),
            (&["kill", &lasting, "KILL"], true),
            (&["delete", "--force", &lasting], true),
        ] {
            println!("{}", words.join(" "));
            entered.extend(run(call(words), stepped).with_context(|| words.join(" "))?);
        }
        Ok(())
    };
    all().inspect_err(|_| drop(run(call(&["delete", "--force", &lasting]), false)))?;
    Ok(entered)
}

/// Runs a command that stops itself first; if `stepped`, then instruction by instruction, with its children.
fn run(mut call: Command, stepped: bool) -> Result<BTreeSet<u64>> {
    let mut child = call.spawn()?;
    let first = Pid::from_raw(child.id().cast_signed());
    waitpid(first, Some(WaitPidFlag::WUNTRACED)).context("wait for the stop")?;
    let mut entered = BTreeSet::new();
    if !stepped {
        kill(first, Signal::SIGCONT)?;
        ensure!(child.wait()?.success(), "failed");
        return Ok(entered);
    }
    ptrace::attach(first).context("ptrace(attach)")?;
    waitpid(first, None)?;
    let follow = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(first, follow)?;
    kill(first, Signal::SIGCONT)?;
    step(first, None)?;
    let mut status = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::ECHILD) => break,
            Err(errno) => return Err(errno).context("wait"),
            Ok(WaitStatus::Exited(pid, code)) if pid == first => status = Some(code),
            Ok(WaitStatus::Stopped(pid, Signal::SIGTRAP)) => {
                entered.extend(program_counter(pid));
                step(pid, None)?;
            }
            Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGCONT)) => step(pid, None)?,
            Ok(WaitStatus::Stopped(pid, signal)) => step(pid, Some(signal))?,
            Ok(WaitStatus::PtraceEvent(pid, ..)) => step(pid, None)?,
            Ok(_) => {}
        }
    }
    ensure!(status == Some(0), "exit status {status:?}");
    Ok(entered)
}

/// A process that was killed in the meantime is no error: its end is reported next.
fn step(pid: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::step(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("ptrace(step)"),
    }
}

#[cfg(target_arch = "x86_64")]
fn program_counter(pid: Pid) -> Option<u64> {
    ptrace::getregs(pid).ok().map(|registers| registers.rip)
}

/// The names of the functions are those of x86_64 on each architecture.
#[cfg(not(target_arch = "x86_64"))]
fn program_counter(_: Pid) -> Option<u64> {
    None
}

fn script(symbols: &Symbols, entered: &BTreeSet<u64>) -> String {
    let executed: BTreeSet<u64> = entered
        .iter()
        .filter_map(|address| {
            let (start, (size, _)) = symbols.range(..=*address).next_back()?;
            (*address < start + size).then_some(*start)
        })
        .collect();
    // Instances of one generic function have one name: all are taken, which is little beside what is left out.
    let patterns: BTreeSet<String> =
        executed.iter().filter_map(|start| Some(pattern(&symbols.get(start)?.1))).collect();
    let mut script = format!("{HEADER}SECTIONS {{\n  .text.start : {{\n");
    for pattern in patterns {
        let _ = writeln!(script, "    *(.text.{pattern})");
    }
    script + "  }\n}\nINSERT BEFORE .text;\n"
}

/// The name of a function's section, without the hashes that change with the compiler and with each change of the code.
fn pattern(name: &str) -> String {
    if name.starts_with("_R") {
        // `Cs`, a base-62 number, `_`: the disambiguator of a crate.
        let mut parts = name.split("Cs");
        let first = parts.next().unwrap_or_default().to_owned();
        return parts.fold(first, |name, part| match part.split_once('_') {
            Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                name + "Cs*_" + rest
            }
            _ => name + "Cs" + part,
        });
    }
    match name.rsplit_once("17h") {
        Some((start, hash)) if name.starts_with("_ZN") && hash.len() == 17 => {
            format!("{start}17h*")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_no_hashes() {
        for (name, expected) in [
            ("main", "main"),
            ("_ZN4aril3cli4main17h5cacc9a84c0a41ecE", "_ZN4aril3cli4main17h*"),
            ("_RNvNtCs2Nb3gJ4iU0I_5alloc3fmt6format", "_RNvNtCs*_5alloc3fmt6format"),
            ("_RNvCsa_1aECsb_9addr2line", "_RNvCs*_1aECs*_9addr2line"),
        ] {
            assert_eq!(pattern(name), expected);
        }
    }

    #[test]
    fn functions_that_were_executed_are_listed() {
        let names = [(0x10, "a"), (0x20, "_ZN1b17h0000000000000000E"), (0x30, "c")];
        let symbols = names.map(|(start, name)| (start, (0x10, name.to_owned()))).into();
        let script = script(&symbols, &[0x2f, 0x30, 0x40].into());
        assert!(script.contains("*(.text._ZN1b17h*)\n    *(.text.c)\n"), "{script}");
        assert!(!script.contains("*(.text.a)"), "{script}");
    }
}
