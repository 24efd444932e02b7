//! Sends requests to systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::bus::{Answer, Bus};
use super::{Manager, Property, Unit, Value, properties};
use crate::cgroup::layout::own_unified;
use crate::cgroup::{Paths, Write, layout};
use crate::error::{Error, Kind, OsContext, Result};
use crate::id::HostPid;

/// Finds the systemd of this host, or of this user.
///
/// # Errors
///
/// No systemd answers, or its cgroup is unknown.
pub fn find(user: bool) -> Result<Manager> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Error::system(
            "systemd not running on this host, cannot use systemd cgroups manager",
        )
        .hint("leave --systemd-cgroup out, or configure the engine for cgroupfs"));
    }
    let devices = fs::read_to_string("/proc/devices").os("read", "/proc/devices")?;
    let cgroup = if user { cgroup_of_user()? } else { "/".into() };
    Ok(Manager { user, cgroup, devices })
}

/// Returns the cgroup of `user@UID.service`, which mostly is an ancestor of the runtime's.
fn cgroup_of_user() -> Result<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).os("read", path);
    let own = own_unified(&read("/proc/self/cgroup")?).unwrap_or_default();
    if let Some(ancestor) = own.ancestors().find(|dir| is_manager(dir)) {
        return Ok(ancestor.to_owned());
    }
    let uid = outer_uid(&read("/proc/self/uid_map")?);
    let cgroup = PathBuf::from(format!("/user.slice/user-{uid}.slice/user@{uid}.service"));
    let dir = Path::new(layout::MOUNT).join(cgroup.strip_prefix("/").unwrap_or(&cgroup));
    if !dir.is_dir() {
        return Err(Error::system(format!(
            "no systemd of user {uid} is running: there is no cgroup {}",
            dir.display()
        ))
        .hint("loginctl enable-linger starts one; it needs a host with cgroup2 alone"));
    }
    Ok(cgroup)
}

fn is_manager(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("user@") && name.ends_with(".service"))
}

/// Returns the runtime's uid outside of its user namespace.
fn outer_uid(map: &str) -> u32 {
    let own = nix::unistd::geteuid().as_raw();
    let outer = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u32>().ok());
        let (inside, outside, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = own.checked_sub(inside).filter(|offset| *offset < length)?;
        Some(outside + offset)
    });
    outer.unwrap_or(own)
}

/// Removes an earlier unit of this name: it may have failed, or may have lost its cgroup without systemd's knowledge,
/// and would stay. `vacant`: there is no process in its cgroup.
pub fn remove_previous(unit: &Unit, vacant: bool) {
    let Some((file, slice)) = existing(&unit.name, unit.user) else { return };
    let ours = unit.slice() == Some(&*slice);
    if let Ok(mut bus) = Bus::connect(unit.user) {
        let _ = if ours && vacant {
            stop_on(&mut bus, &unit.name)
        } else {
            bus.call("ResetFailedUnit", &[unit.name.as_str().into()]).map(drop)
        };
    }
    wait_for_end(&file);
}

/// Removes the unit of this cgroup, whose processes have ended. Mostly systemd has removed it already, and its file is
/// gone; it has not, if the cgroup is removed before systemd has looked. A systemd that does not answer is no error,
/// because the cgroup is removed in any case.
pub fn stop(paths: &Paths) {
    let Some((name, user)) = unit_of(paths) else { return };
    // A unit of the same name in another slice belongs to another container.
    let ours = |slice: &str| paths.values().any(|dir| slice_of(dir) == Some(slice));
    if existing(name, user).is_some_and(|(_, slice)| ours(&slice))
        && let Ok(mut bus) = Bus::connect(user)
    {
        let _ = stop_on(&mut bus, name);
    }
}

/// Returns the slice, by the name of the directory that contains the cgroup.
fn slice_of(dir: &Path) -> Option<&str> {
    let name = dir.parent()?.file_name()?.to_str()?;
    Some(if name.ends_with(".slice") { name } else { "-.slice" })
}

fn stop_on(bus: &mut Bus, name: &str) -> Result<()> {
    if let Answer::Done(job) = bus.call("StopUnit", &[name.into(), "replace".into()])? {
        bus.wait_for(&job)?;
    }
    bus.call("ResetFailedUnit", &[name.into()]).map(drop)
}

/// Returns the unit's name, and true for the systemd of a user.
fn unit_of(paths: &Paths) -> Option<(&str, bool)> {
    let dir = paths.values().next()?;
    let name = dir.file_name()?.to_str()?;
    Some((name, dir.ancestors().any(is_manager)))
}

/// Returns the file of a transient unit, which exists as long as systemd knows the unit, and the unit's slice.
#[expect(clippy::disallowed_methods, reason = "the directory of the caller's systemd")]
fn existing(name: &str, user: bool) -> Option<(PathBuf, String)> {
    let directory = if user {
        PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?)
    } else {
        PathBuf::from("/run")
    };
    let file = directory.join("systemd/transient").join(name);
    let text = fs::read_to_string(&file).ok()?;
    let slice = text.lines().find_map(|line| line.strip_prefix("Slice="));
    Some((file, slice.unwrap_or_default().to_owned()))
}

fn wait_for_end(file: &Path) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + PATIENCE;
    while file.exists() && Instant::now() < deadline {
        sleep(Duration::from_millis(1));
    }
}

/// Creates the unit around `pid`. With `settled`, returns when systemd has moved the process and written its values,
/// otherwise as soon as systemd has accepted the unit.
///
/// # Errors
///
/// systemd rejects the unit, or its job fails.
pub fn start(unit: &Unit, pid: HostPid, settled: bool) -> Result<()> {
    let mut bus = Bus::connect(unit.user)?;
    start_on(&mut bus, unit, pid, settled)
        .map_err(|e| e.context(format!("unable to start unit {:?}", unit.name)))
}

fn start_on(bus: &mut Bus, unit: &Unit, pid: HostPid, settled: bool) -> Result<()> {
    let mut answer = ask(bus, unit, pid, true)?;
    if is_error(&answer, "systemd1.UnitExists") {
        bus.call("ResetFailedUnit", &[unit.name.as_str().into()])?;
        answer = ask(bus, unit, pid, true)?;
    }
    if is_unknown_property(&answer) && unit.properties.iter().any(|p| p.recent) {
        answer = ask(bus, unit, pid, false)?;
    }
    let job = done(answer)?;
    if !settled {
        return Ok(());
    }
    let result = bus.wait_for(&job)?;
    if result == "done" {
        return Ok(());
    }
    bus.call("ResetFailedUnit", &[unit.name.as_str().into()]).ok();
    Err(Error::system(format!("error creating systemd unit `{}`: got `{result}`", unit.name))
        .hint(format!("journalctl -u {} may tell why", unit.name)))
}

fn ask(bus: &mut Bus, unit: &Unit, pid: HostPid, recent: bool) -> Result<Answer> {
    let mut given = arguments(unit.properties.iter().filter(|p| recent || !p.recent));
    if !unit.is_slice() {
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid.0.unsigned_abs())]);
        given.push(pair("PIDs", pids));
    }
    bus.call(
        "StartTransientUnit",
        &[
            unit.name.as_str().into(),
            "replace".into(),
            Value::Array("(sv)".into(), given),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ],
    )
}

/// Moves `pid` into the unit of this cgroup (systemd 238). A user's systemd asks the systemd of the host if it lacks
/// permission.
///
/// # Errors
///
/// systemd rejects the process: before version 238 the call does not exist.
pub fn attach(paths: &Paths, pid: HostPid) -> Result<()> {
    let Some((name, user)) = unit_of(paths) else { return Ok(()) };
    let pids = Value::Array("u".into(), vec![Value::Uint32(pid.0.unsigned_abs())]);
    let own_cgroup = "";
    let mut bus = Bus::connect(user)?;
    done(bus.call("AttachProcessesToUnit", &[name.into(), own_cgroup.into(), pids])?)
        .map(drop)
        .map_err(|e| e.context(format!("unable to move process {pid} to unit {name:?}")))
}

fn arguments<'a>(properties: impl Iterator<Item = &'a Property>) -> Vec<Value> {
    properties.map(|p| pair(&p.name, p.value.clone())).collect()
}

fn pair(name: &str, value: Value) -> Value {
    Value::Structure(vec![name.into(), value.variant()])
}

fn is_error(answer: &Answer, suffix: &str) -> bool {
    matches!(answer, Answer::Refused { name, .. } if name.ends_with(suffix))
}

/// Errors of older versions for unknown properties or values.
fn is_unknown_property(answer: &Answer) -> bool {
    ["DBus.Error.PropertyReadOnly", "DBus.Error.InvalidArgs", "DBus.Error.UnknownProperty"]
        .iter()
        .any(|name| is_error(answer, name))
}

fn done(answer: Answer) -> Result<String> {
    match answer {
        Answer::Done(text) => Ok(text),
        Answer::Refused { name, text } if name.ends_with("systemd1.UnitExists") => {
            Err(Error::new(Kind::Exists, text)
                .hint("a container or service of that name is there: choose another cgroupsPath"))
        }
        Answer::Refused { text, .. } => Err(Error::system(text)),
    }
}

/// Sets the limits of a running container as properties of its unit, for `update`; device rules are never among them.
/// Returns when systemd has written them. systemd may write other values than `writes`, so the caller writes the files
/// afterwards.
///
/// # Errors
///
/// systemd rejects a property that it knows.
pub fn set(paths: &Paths, writes: &[Write]) -> Result<()> {
    let Some((name, user)) = unit_of(paths) else { return Ok(()) };
    let properties = properties::of_writes(writes);
    if properties.is_empty() {
        return Ok(());
    }
    let bus = &mut Bus::connect(user)?;
    set_on(bus, name, &properties)?;
    // systemd answers first and writes then, but before it processes another call.
    bus.call("GetUnit", &[name.into()]).map(drop)
}

/// Sets the memory limits that were delayed until the end of the setup.
///
/// # Errors
///
/// systemd rejects the limits.
pub fn set_late_limits(unit: &Unit) -> Result<()> {
    if unit.tight.is_empty() {
        return Ok(());
    }
    set_on(&mut Bus::connect(unit.user)?, &unit.name, &unit.tight)
}

fn set_on(bus: &mut Bus, name: &str, properties: &[Property]) -> Result<()> {
    const RUNTIME: bool = true;
    let mut call = |properties: Vec<Value>| {
        let properties = Value::Array("(sv)".into(), properties);
        bus.call("SetUnitProperties", &[name.into(), RUNTIME.into(), properties])
    };
    let mut answer = call(arguments(properties.iter()))?;
    if is_unknown_property(&answer) && properties.iter().any(|p| p.recent) {
        answer = call(arguments(properties.iter().filter(|p| !p.recent)))?;
    }
    done(answer).map(drop).map_err(|e| e.context(format!("unable to set properties of {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_outside() {
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(outer_uid("         0          0 4294967295\n"), own);
        assert_eq!(outer_uid(&format!("{own} 1000 1\n{} 100000 65536\n", own + 1)), 1000);
        assert_eq!(outer_uid(""), own);
    }

    #[test]
    fn units_of_paths() {
        let of = |dir: &str| {
            let paths = Paths::from([(String::new(), dir.into())]);
            unit_of(&paths).map(|(name, user)| (name.to_owned(), user))
        };
        assert_eq!(of("/sys/fs/cgroup/a.slice/p-n.scope"), Some(("p-n.scope".into(), false)));
        assert_eq!(of("/cg/user@7.service/a.slice/p-n.scope"), Some(("p-n.scope".into(), true)));
        assert_eq!(unit_of(&Paths::new()), None);
        assert_eq!(slice_of(Path::new("/cg/a.slice/a-b.slice/p-n.scope")), Some("a-b.slice"));
        assert_eq!(slice_of(Path::new("/cg/p-n.scope")), Some("-.slice"));
    }

    #[test]
    fn managers_of_users() {
        assert!(is_manager(Path::new("/user.slice/user-7.slice/user@7.service")));
        assert!(!is_manager(Path::new("/user.slice/user-7.slice")));
    }
}
