//! Operations, and their environment: bundles in a scratch directory, and a private mount namespace with only cgroup2
//! at /sys/fs/cgroup. With `--systemd`, the host's own layout is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::command;
use crate::contender::{Contender, Kind};
use crate::options::{Operation, Options};
use crate::report::Report;

/// Rounds that run before the measurement.
const WARM_UP: usize = 5;

pub struct Setup {
    pub scratch: PathBuf,
    /// Bundle that runs `/bin/true` with the default spec.
    pub bundle: PathBuf,
    /// The same bundle with a seccomp filter as large as Docker's.
    filtered: PathBuf,
    /// Bundle whose process waits to be killed.
    sleeper: PathBuf,
    /// Create containers with the systemd cgroup driver.
    systemd: bool,
}

impl Setup {
    pub fn prepare(options: &Options) -> Result<Setup> {
        if !options.systemd {
            pure_cgroup2_view()?;
        }
        let scratch = std::env::temp_dir().join(format!("aril-bench-{}", std::process::id()));
        let spec = fs::read_to_string(options.bundle.join("config.json"))
            .with_context(|| format!("{} (make bundle makes it)", options.bundle.display()))?;
        let mut spec: Value = serde_json::from_str(&spec)?;
        spec["root"]["path"] = json!(fs::canonicalize(options.bundle.join("rootfs"))?);
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
        spec["linux"]["namespaces"] = json!(
            ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}))
        );
        let bundle = write_bundle(&scratch, "true", &spec)?;
        let filtered = match fs::read_to_string(&options.seccomp) {
            Ok(profile) => {
                let mut spec = spec.clone();
                spec["linux"]["seccomp"] = serde_json::from_str(&profile)?;
                write_bundle(&scratch, "filtered", &spec)?
            }
            Err(_) => PathBuf::new(),
        };
        spec["process"]["args"] = json!(["/bin/sleep", "86400"]);
        let sleeper = write_bundle(&scratch, "sleeper", &spec)?;
        Ok(Setup { scratch, bundle, filtered, sleeper, systemd: options.systemd })
    }

    /// Arguments that run `bundle` until it ends.
    pub fn run(&self, contender: &Contender, id: &str, bundle: &Path) -> Vec<String> {
        match contender.kind {
            Kind::Floor => vec![self.rootfs()],
            Kind::Runtime => self.verb(contender, &["run", "--bundle", text(bundle), id]),
        }
    }

    fn verb(&self, contender: &Contender, rest: &[&str]) -> Vec<String> {
        let mut args = vec!["--root".to_owned(), text(&contender.root).to_owned()];
        args.extend(self.systemd.then(|| "--systemd-cgroup".to_owned()));
        args.extend(rest.iter().map(|&word| word.to_owned()));
        args
    }

    fn rootfs(&self) -> String {
        let spec = fs::read_to_string(self.bundle.join("config.json")).unwrap_or_default();
        let spec: Value = serde_json::from_str(&spec).unwrap_or_default();
        spec["root"]["path"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Mounts cgroup2 over /sys/fs/cgroup in a new mount namespace.
fn pure_cgroup2_view() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(mount namespace): bench needs root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // State is in memory, as on every host with systemd, regardless of this host's /run.
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run", tmpfs, MsFlags::empty(), Some("mode=755")).context("mount tmpfs")?;
    let options = runtime_tests::host::cgroup2_options();
    let kind = Some("cgroup2");
    mount(kind, "/sys/fs/cgroup", kind, MsFlags::empty(), Some(options.as_str()))
        .context("mount cgroup2")
}

fn write_bundle(scratch: &Path, name: &str, spec: &Value) -> Result<PathBuf> {
    let bundle = scratch.join(name);
    fs::create_dir_all(&bundle)?;
    fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(spec)?)?;
    Ok(bundle)
}

/// Converts a path that this program made from UTF-8.
fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn timed(contender: &Contender, args: &[String]) -> Result<Duration> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    command::timed(&contender.path, &args)
}

fn quiet(contender: &Contender, args: &[&str], setup: &Setup) -> Result<()> {
    let args = setup.verb(contender, args);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    command::quiet(&contender.path, &args, &setup.scratch)
}

/// Time that one round of `operation` takes a contender.
fn once(
    operation: Operation,
    contender: &Contender,
    id: &str,
    setup: &Setup,
    rest: Duration,
) -> Result<Duration> {
    sleep(rest);
    match operation {
        Operation::Run => timed(contender, &setup.run(contender, id, &setup.bundle)),
        Operation::RunSeccomp => timed(contender, &setup.run(contender, id, &setup.filtered)),
        Operation::Exec => {
            timed(contender, &setup.verb(contender, &["exec", &sleeper_of(contender), "/bin/true"]))
        }
        Operation::State => {
            timed(contender, &setup.verb(contender, &["state", &sleeper_of(contender)]))
        }
        Operation::Empty => command::timed(&contender.path, &[]),
        Operation::Cycle => {
            let bundle = text(&setup.bundle);
            let create =
                timed(contender, &setup.verb(contender, &["create", "--bundle", bundle, id]))?;
            sleep(rest);
            let start = timed(contender, &setup.verb(contender, &["start", id]))?;
            sleep(rest.max(Duration::from_millis(5))); // /bin/true ends: delete needs a stopped container
            let delete = timed(contender, &setup.verb(contender, &["delete", "--force", id]))?;
            Ok(create + start + delete)
        }
    }
}

/// Running container that `exec` and `state` are called for. Deleted when dropped.
struct Sleeper<'a> {
    contender: &'a Contender,
    setup: &'a Setup,
}

impl<'a> Sleeper<'a> {
    fn start(contender: &'a Contender, setup: &'a Setup) -> Result<Sleeper<'a>> {
        let sleeper = Sleeper { contender, setup };
        let (bundle, id) = (text(&setup.sleeper), sleeper_of(contender));
        quiet(contender, &["run", "--detach", "--bundle", bundle, &id], setup)?;
        Ok(sleeper)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        let id = sleeper_of(self.contender);
        if let Err(why) = quiet(self.contender, &["delete", "--force", &id], self.setup) {
            eprintln!("bench: {why:#}");
        }
    }
}

/// Container IDs differ between contenders, because the ID alone names the default cgroup.
fn sleeper_of(contender: &Contender) -> String {
    format!("bench-sleeper-{}", contender.name)
}

fn needs_sleeper(operation: Operation) -> bool {
    matches!(operation, Operation::Exec | Operation::State)
}

fn takes_part(operation: Operation, contender: &Contender, setup: &Setup) -> bool {
    match operation {
        Operation::Run => true,
        Operation::RunSeccomp => contender.kind == Kind::Runtime && setup.filtered != Path::new(""),
        Operation::Cycle | Operation::Exec | Operation::State => contender.kind == Kind::Runtime,
        Operation::Empty => false,
    }
}

/// Measures `operation` for all contenders that support it, and adds the series to `report`.
pub fn measure(
    operation: Operation,
    rest: Duration,
    contenders: &[Contender],
    options: &Options,
    setup: &Setup,
    report: &mut Report,
) -> Result<()> {
    let rounds = if rest.is_zero() { options.iterations } else { options.rested };
    let empty = empty_program(setup)?;
    let field: Vec<&Contender> = match operation {
        Operation::Empty => vec![&empty],
        _ => {
            contenders.iter().filter(|contender| takes_part(operation, contender, setup)).collect()
        }
    };
    let asleep = field.iter().filter(|_| needs_sleeper(operation));
    let _sleepers: Vec<Sleeper> =
        asleep.map(|contender| Sleeper::start(contender, setup)).collect::<Result<_>>()?;
    let mut series = vec![Vec::with_capacity(rounds); field.len()];
    for round in 0..WARM_UP + rounds {
        for turn in 0..field.len() {
            let index = (round + turn) % field.len();
            let id = format!("bench-{round}-{index}");
            let taken = once(operation, field[index], &id, setup, rest)?;
            if round >= WARM_UP {
                series[index].push(taken);
            }
        }
    }
    for (contender, series) in field.iter().zip(&series) {
        report.add(operation, rest, &contender.name, series);
    }
    Ok(())
}

/// Builds a static program that does nothing, as the lower bound of a verb.
fn empty_program(setup: &Setup) -> Result<Contender> {
    let here = std::env::current_exe()?;
    let path = here.with_file_name("empty");
    Ok(Contender { name: "empty".into(), path, kind: Kind::Floor, root: setup.scratch.clone() })
}
