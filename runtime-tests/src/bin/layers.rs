//! `RUNTIME=... layers [--rounds N] [--rested N] [--state DIR] [--peer NAME=PATH]...`, as root: measures the time
//! that layers add to a `run`. It compares with a `run` without layers, with the peers on the same bundle without
//! layers, and with the kernel's cost of the same overlay: mount(2) alone, and everything from the creation of its
//! directories to their removal. It measures in a tight loop, after a rest, and beside a crowd of containers.

#[path = "bench/statistics.rs"]
mod statistics;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use runtime_tests::{Runtime, View, host};
use serde_json::{Value, json};
use statistics::Summary;

const COUNTS: [usize; 5] = [1, 10, 50, 100, 500];
const IN_A_CROWD: [usize; 2] = [10, 500];
const CROWD: usize = 100;
const LOOKED_UP: [&str; 5] = ["at/proc", "at/dev", "at/sys", "at/etc/passwd", "at/bin/busybox"];
const WARM_UP: usize = 3;
const REST: Duration = Duration::from_millis(100);

struct Options {
    rounds: usize,
    rested: usize,
    /// Directory of state directories and ephemeral upper directories. `None`: in memory.
    state: Option<PathBuf>,
    peers: Vec<(String, PathBuf)>,
}

/// Contender of a round.
enum Contender {
    Peer(String, PathBuf),
    Plain,
    Layers(usize),
    Mount(usize),
    Whole(usize),
}

fn main() -> Result<()> {
    let options = options()?;
    private_view()?;
    let dir = std::env::temp_dir().join(format!("aril-layers-{}", std::process::id()));
    let state = options.state.as_ref().map(|at| at.join(format!("state-{}", std::process::id())));
    let place = Setup { state: state.unwrap_or_else(|| "/run/aril-layers".into()), dir };
    let measured = place.measure(&options);
    let removed = [&place.dir, &place.state].map(fs::remove_dir_all);
    measured?;
    removed.into_iter().collect::<std::io::Result<()>>().context("clean up")
}

fn options() -> Result<Options> {
    let mut options = Options { rounds: 100, rested: 30, state: None, peers: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--rounds" => options.rounds = value.parse().context("--rounds")?,
            "--rested" => options.rested = value.parse().context("--rested")?,
            "--state" => options.state = Some(value.into()),
            "--peer" => {
                let (name, path) = value.split_once('=').context("--peer takes NAME=PATH")?;
                options.peers.push((name.to_owned(), path.into()));
            }
            _ => bail!("unknown option {flag}"),
        }
    }
    Ok(options)
}

/// Mounts cgroup2 alone, and /run in memory, regardless of the host, as `bench` does.
fn private_view() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(mount namespace): layers needs root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let kind = Some("tmpfs");
    mount(kind, "/run", kind, MsFlags::empty(), Some("mode=755")).context("mount tmpfs")?;
    let (kind, options) = (Some("cgroup2"), host::cgroup2_options());
    mount(kind, "/sys/fs/cgroup", kind, MsFlags::empty(), Some(options.as_str()))
        .context("mount cgroup2")
}

struct Setup {
    dir: PathBuf,
    state: PathBuf,
}

impl Setup {
    fn measure(&self, options: &Options) -> Result<()> {
        self.prepare()?;
        let peers =
            options.peers.iter().map(|(name, path)| Contender::Peer(name.clone(), path.clone()));
        let counts = COUNTS.map(|count| {
            [Contender::Layers(count), Contender::Whole(count), Contender::Mount(count)]
        });
        let all: Vec<_> =
            peers.chain([Contender::Plain]).chain(counts.into_iter().flatten()).collect();
        self.table("", &all, options)?;
        self.crowd(options)
    }

    fn prepare(&self) -> Result<()> {
        for number in 0..COUNTS.into_iter().max().context("counts")? {
            fs::create_dir_all(self.dir.join(number.to_string()).join("etc"))?;
        }
        for name in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(self.dir.join("0").join(name))?;
        }
        fs::copy("/bin/busybox", self.dir.join("0/bin/busybox"))
            .context("busybox-static is missing")?;
        fs::create_dir_all(self.dir.join("at"))?;
        fs::create_dir_all(&self.state)?;
        self.bundle("plain", None, &["true"])?;
        for count in COUNTS {
            self.bundle(&count.to_string(), Some(count), &["true"])?;
        }
        Ok(())
    }

    fn table(&self, beside: &str, all: &[Contender], options: &Options) -> Result<()> {
        for (rounds, rest) in [(options.rounds, Duration::ZERO), (options.rested, REST)] {
            if rounds == 0 {
                continue;
            }
            let pace = if rest.is_zero() { "tight" } else { "after 100 ms of rest" };
            println!("\n**{pace}**{beside}, ms\n\n| | median | p99 | min | added to `run` |");
            println!("|---|---:|---:|---:|---:|");
            let series = self.series(all, rounds, rest)?;
            let plain = all.iter().position(|contender| matches!(contender, Contender::Plain));
            let plain = plain.map_or(0.0, |at| series[at].median);
            for (contender, Summary { median, p99, min }) in all.iter().zip(&series) {
                let added = match contender {
                    Contender::Layers(_) => format!("{:.2}", median - plain),
                    _ => String::new(),
                };
                println!("| {} | {median:.2} | {p99:.2} | {min:.2} | {added} |", contender.name());
            }
        }
        Ok(())
    }

    /// Measures all contenders in each round. The order rotates from round to round.
    fn series(&self, all: &[Contender], rounds: usize, rest: Duration) -> Result<Vec<Summary>> {
        let mut series = vec![Vec::new(); all.len()];
        for round in 0..rounds + WARM_UP {
            for turn in 0..all.len() {
                let at = (round + turn) % all.len();
                sleep(rest);
                let taken = self.once(&all[at], round)?;
                if round >= WARM_UP {
                    series[at].push(taken);
                }
            }
        }
        series.iter().map(|series| Summary::of(series).context("no rounds")).collect()
    }

    fn once(&self, contender: &Contender, round: usize) -> Result<Duration> {
        match contender {
            Contender::Mount(count) => self.mount(*count).map(|(mount, _)| mount),
            Contender::Whole(count) => self.mount(*count).map(|(_, whole)| whole),
            Contender::Peer(name, path) => self.run(path, name, "plain", round),
            Contender::Plain => self.run(&Runtime::under_test().path, "aril", "plain", round),
            Contender::Layers(count) => {
                self.run(&Runtime::under_test().path, "aril", &count.to_string(), round)
            }
        }
    }

    fn run(&self, program: &Path, name: &str, bundle: &str, round: usize) -> Result<Duration> {
        let mut command = self.runtime(program, name);
        command.args(["run", "-b"]).arg(self.dir.join("bundle").join(bundle));
        command.arg(format!("{name}{round}"));
        let start = Instant::now();
        let status = command.status()?;
        let taken = start.elapsed();
        ensure!(status.success(), "run of {bundle} by {}: {status}", program.display());
        Ok(taken)
    }

    fn runtime(&self, program: &Path, name: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.state.join(name)).stdin(Stdio::null());
        if name == "aril" {
            command.args(["--allow-annotation", "io.aril.rootfs.layers"]);
        }
        command
    }

    /// Measures mount(2) alone, and all steps of an overlay: directories, mount(2), the lookups of a start,
    /// umount(2). Names are relative: 500 absolute names exceed the page that mount(2) accepts.
    fn mount(&self, count: usize) -> Result<(Duration, Duration)> {
        std::env::set_current_dir(&self.dir)?;
        let scratch = self.state.join("by-mount");
        fs::create_dir(&scratch)?;
        let begin = Instant::now();
        for name in ["upper", "work"] {
            fs::create_dir(scratch.join(name))?;
        }
        let lowers: Vec<_> = (0..count).rev().map(|n| n.to_string()).collect();
        let place = scratch.display();
        let options = format!(
            "lowerdir={},upperdir={place}/upper,workdir={place}/work,volatile",
            lowers.join(":")
        );
        let kind = Some("overlay");
        let start = Instant::now();
        mount(kind, "at", kind, MsFlags::empty(), Some(options.as_str()))?;
        let taken = start.elapsed();
        for name in LOOKED_UP {
            let _ = fs::metadata(name);
        }
        umount("at")?;
        fs::remove_dir(scratch.join("upper"))?;
        let work = scratch.join("work");
        fs::remove_file(work.join("work/incompat/volatile/dirty"))?;
        for name in ["work/incompat/volatile", "work/incompat", "work", ""] {
            fs::remove_dir(work.join(name))?;
        }
        let whole = begin.elapsed();
        fs::remove_dir(&scratch)?;
        Ok((taken, whole))
    }

    /// Writes a bundle with `count` layers, or with a plain rootfs directory.
    fn bundle(&self, name: &str, count: Option<usize>, args: &[&str]) -> Result<PathBuf> {
        let bundle = self.dir.join("bundle").join(name);
        fs::create_dir_all(&bundle)?;
        let mut spec: Value = runtime_tests::spec::runc(View::Unified);
        let args = [&["/bin/busybox"], args].concat();
        spec["process"]["args"] = json!(args);
        spec["root"] = json!({"path": self.dir.join("0"), "readonly": false});
        if let Some(count) = count {
            let layers: Vec<_> = (0..count).map(|n| self.dir.join(n.to_string())).collect();
            let list = serde_json::to_string(&layers)?;
            spec["annotations"] = json!({"io.aril.rootfs.layers": list});
        }
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
        Ok(bundle)
    }

    /// Measures beside many running containers with layers. The host's mount table must not change.
    fn crowd(&self, options: &Options) -> Result<()> {
        let before = fs::read_to_string("/proc/self/mountinfo")?;
        let mut made = Ok(());
        for number in 0..CROWD {
            made = made.and_then(|()| self.start(number));
        }
        let measured = made.and_then(|()| {
            let now = fs::read_to_string("/proc/self/mountinfo")?;
            ensure!(now == before, "the host's mount table has changed:\n{before}\n{now}");
            let all: Vec<_> =
                [Contender::Plain].into_iter().chain(IN_A_CROWD.map(Contender::Layers)).collect();
            self.table(&format!(", beside {CROWD} containers of 10 layers"), &all, options)
        });
        for number in 0..CROWD {
            let mut delete = self.runtime(&Runtime::under_test().path, "aril");
            delete.args(["delete", "--force", &format!("crowd{number}")]).status()?;
        }
        measured
    }

    fn start(&self, number: usize) -> Result<()> {
        let id = format!("crowd{number}");
        let bundle = self.bundle(&id, Some(10), &["sleep", "1000"])?;
        let mut command = self.runtime(&Runtime::under_test().path, "aril");
        let status = command.args(["run", "-d", "-b"]).arg(&bundle).arg(&id).status()?;
        ensure!(status.success(), "start of {id}: {status}");
        Ok(())
    }
}

impl Contender {
    fn name(&self) -> String {
        match self {
            Self::Peer(name, _) => format!("{name}, no layers"),
            Self::Plain => "aril, no layers".to_owned(),
            Self::Layers(1) => "aril, 1 layer".to_owned(),
            Self::Layers(count) => format!("aril, {count} layers"),
            Self::Whole(count) => {
                format!("&nbsp; an overlay of {count}: create, look up, remove")
            }
            Self::Mount(count) => format!("&nbsp; mount(2) of {count}"),
        }
    }
}
