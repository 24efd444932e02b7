//! What layers add to a `run`, beside what mount(2) takes for the same overlay: medians, and the least of
//! all rounds, which what else the machine does changes less.
//! `RUNTIME=... layers [ROUNDS]`, as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use runtime_tests::Runtime;

const COUNTS: [usize; 4] = [1, 10, 50, 500];
const CROWD: usize = 100;

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(21), |n| n.parse()).context("ROUNDS")?;
    let dir = std::env::temp_dir().join(format!("aril-layers-{}", std::process::id()));
    let measured = measure(&dir, rounds);
    fs::remove_dir_all(&dir).context("clean up")?;
    measured
}

fn measure(dir: &Path, rounds: usize) -> Result<()> {
    prepare(dir)?;
    // mount(2) is measured in a namespace of its own, but the runtime starts from the host's size of table.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    println!("| layers | mount(2), µs | added to `run`, µs | least: mount(2) | added to `run` |");
    println!("|---|---|---|---|---|");
    for count in COUNTS {
        let (mut by_mount, mut plain, mut layered) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            by_mount.push(mount_once(dir, count)?);
            plain.push(run(dir, "plain", None, round)?);
            layered.push(run(dir, "layered", Some(count), round)?);
        }
        let mounted = [median, least].map(|of| of(&by_mount));
        let added = [median, least].map(|of| of(&layered) - of(&plain));
        println!(
            "| {count} | {:.0} | {:.0} | {:.0} | {:.0} |",
            mounted[0], added[0], mounted[1], added[1]
        );
    }
    crowd(dir, rounds)
}

/// The same of 10 layers while many containers run.
fn crowd(dir: &Path, rounds: usize) -> Result<()> {
    let mut made = Ok(());
    for number in 0..CROWD {
        made = made.and(start(dir, &format!("crowd{number}")));
    }
    let mut figures = (Vec::new(), Vec::new());
    for round in 0..rounds {
        figures.0.push(run(dir, "plain", None, round)?);
        figures.1.push(run(dir, "layered", Some(10), round)?);
    }
    for number in 0..CROWD {
        aril(dir).args(["delete", "--force", &format!("crowd{number}")]).status()?;
    }
    made?;
    let added = [median, least].map(|of| of(&figures.1) - of(&figures.0));
    println!("| 10, beside {CROWD} containers | | {:.0} | | {:.0} |", added[0], added[1]);
    Ok(())
}

fn prepare(dir: &Path) -> Result<()> {
    for number in 0..*COUNTS.last().context("counts")? {
        fs::create_dir_all(dir.join(number.to_string()).join("etc"))?;
    }
    fs::create_dir_all(dir.join("0/bin"))?;
    fs::copy("/bin/busybox", dir.join("0/bin/busybox")).context("busybox-static is missing")?;
    for name in ["upper", "work", "at"] {
        fs::create_dir_all(dir.join(name))?;
    }
    for name in ["dev", "proc", "sys"] {
        fs::create_dir_all(dir.join("0").join(name))?;
    }
    Ok(())
}

/// By relative names, or 500 of them would not fit into the page that mount(2) takes.
fn mount_once(dir: &Path, count: usize) -> Result<Duration> {
    std::env::set_current_dir(dir)?;
    let lowers: Vec<_> = (0..count).rev().map(|n| n.to_string()).collect();
    let options = format!("lowerdir={},upperdir=upper,workdir=work", lowers.join(":"));
    let start = Instant::now();
    mount(Some("overlay"), "at", Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    let taken = start.elapsed();
    umount("at")?;
    Ok(taken)
}

fn aril(dir: &Path) -> Command {
    let mut command = Command::new(&Runtime::under_test().path);
    command.arg("--root").arg(dir.join("state")).stdin(Stdio::null());
    command
}

/// A bundle of `count` layers, or of a plain folder.
fn bundle(dir: &Path, name: &str, count: Option<usize>) -> Result<PathBuf> {
    let bundle = dir.join(format!("bundle-{name}-{}", count.unwrap_or(0)));
    if bundle.exists() {
        return Ok(bundle);
    }
    fs::create_dir(&bundle)?;
    let mut spec = runtime_tests::spec::runc(runtime_tests::View::Host);
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "true"]);
    spec["root"]["path"] = serde_json::json!(dir.join("0"));
    spec["linux"]["cgroupsPath"] = serde_json::json!(format!("/aril-layers-{name}"));
    if let Some(count) = count {
        let layers: Vec<_> = (0..count).map(|n| dir.join(n.to_string())).collect();
        let list = serde_json::to_string(&layers)?;
        spec["annotations"]["io.aril.rootfs.layers"] = list.into();
    }
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(bundle)
}

fn run(dir: &Path, name: &str, count: Option<usize>, round: usize) -> Result<Duration> {
    let bundle = bundle(dir, name, count)?;
    let start = Instant::now();
    let status =
        aril(dir).args(["run", "-b"]).arg(&bundle).arg(format!("{name}{round}")).status()?;
    let taken = start.elapsed();
    ensure!(status.success(), "run of {}: {status}", bundle.display());
    Ok(taken)
}

fn start(dir: &Path, id: &str) -> Result<()> {
    let bundle = bundle(dir, id, Some(10))?;
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "sleep", "1000"]);
    fs::write(path, serde_json::to_vec(&spec)?)?;
    let status = aril(dir).args(["run", "-d", "-b"]).arg(&bundle).arg(id).status()?;
    ensure!(status.success(), "start of {id}: {status}");
    Ok(())
}

/// In microseconds.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    microseconds(times[times.len() / 2])
}

fn least(times: &[Duration]) -> f64 {
    microseconds(times.iter().min().copied().unwrap_or_default())
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
