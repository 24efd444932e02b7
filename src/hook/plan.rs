//! Prepares the hooks of the config for execve. Pure.

use std::ffi::CString;
use std::time::Duration;

use oci_spec::runtime::{Hook as Specified, Hooks};

use super::{Hook, Point};
use crate::error::{Context, Error, Result};
use crate::path::{c_path, c_string};

/// Hooks of each point, in the config's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    prestart: Vec<Hook>,
    create_runtime: Vec<Hook>,
    create_container: Vec<Hook>,
    start_container: Vec<Hook>,
    poststart: Vec<Hook>,
    poststop: Vec<Hook>,
}

impl Plan {
    /// Hooks of a point.
    pub fn at(&self, point: Point) -> &[Hook] {
        match point {
            Point::Prestart => &self.prestart,
            Point::CreateRuntime => &self.create_runtime,
            Point::CreateContainer => &self.create_container,
            Point::StartContainer => &self.start_container,
            Point::Poststart => &self.poststart,
            Point::Poststop => &self.poststop,
        }
    }
}

// Engines still use the deprecated prestart.
/// Prepares all hooks. The error names the point and the hook's index.
///
/// # Errors
///
/// A path is not absolute, a timeout is not positive, or a text contains a NUL byte.
#[allow(deprecated)]
pub fn plan(hooks: Option<&Hooks>) -> Result<Plan> {
    let Some(hooks) = hooks else { return Ok(Plan::default()) };
    Ok(Plan {
        prestart: list(Point::Prestart, hooks.prestart())?,
        create_runtime: list(Point::CreateRuntime, hooks.create_runtime())?,
        create_container: list(Point::CreateContainer, hooks.create_container())?,
        start_container: list(Point::StartContainer, hooks.start_container())?,
        poststart: list(Point::Poststart, hooks.poststart())?,
        poststop: list(Point::Poststop, hooks.poststop())?,
    })
}

fn list(point: Point, hooks: &Option<Vec<Specified>>) -> Result<Vec<Hook>> {
    let hooks = hooks.iter().flatten().enumerate();
    hooks.map(|(i, hook)| prepare(hook).context(|| format!("{point} hook #{i}"))).collect()
}

fn prepare(hook: &Specified) -> Result<Hook> {
    if !hook.path().is_absolute() {
        return Err(Error::config(format!("path {:?} is not absolute", hook.path())));
    }
    let path = c_path("path", hook.path())?;
    let mut argv = c_strings("args", hook.args().as_deref().unwrap_or_default())?;
    if argv.is_empty() {
        argv.push(path.clone());
    }
    let env = hook.env().as_deref().map(|env| c_strings("env", env)).transpose()?;
    let timeout = hook.timeout().map(timeout).transpose()?;
    Ok(Hook { path, argv, env, timeout })
}

fn timeout(seconds: i64) -> Result<Duration> {
    // What nanoseconds in 64 bits can count, as for runc: 292 years.
    const LONGEST: u64 = i64::MAX as u64 / 1_000_000_000;
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=LONGEST) => Ok(Duration::from_secs(seconds)),
        Ok(1..) => Err(Error::config(format!("timeout {seconds} is greater than {LONGEST}"))),
        _ => Err(Error::config(format!("timeout {seconds} is not greater than zero"))),
    }
}

fn c_strings(what: &str, texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(what, text.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(hook: Value) -> Result<Hook> {
        let hooks =
            serde_json::from_value(json!({"poststop": [{"path": "/first"}, hook]})).unwrap();
        plan(Some(&hooks)).map(|plan| plan.at(Point::Poststop)[1].clone())
    }

    #[test]
    fn args_are_the_whole_argv() {
        let hook = planned(json!({"path": "/proc/7/exe", "args": ["setkey", "x"], "timeout": 3}));
        let hook = hook.unwrap();
        assert_eq!(hook.path.as_c_str(), c"/proc/7/exe");
        assert_eq!(hook.argv, [c"setkey".into(), CString::from(c"x")]);
        assert_eq!((hook.env, hook.timeout), (None, Some(Duration::from_secs(3))));
        let hook = planned(json!({"path": "/h", "env": []})).unwrap();
        assert_eq!(hook.argv, [CString::from(c"/h")]);
        assert_eq!(hook.env, Some(Vec::new()));
    }

    #[test]
    fn errors_name_the_hook() {
        for (hook, message) in [
            (json!({"path": "h"}), "poststop hook #1: path \"h\" is not absolute"),
            (
                json!({"path": "/h", "timeout": 0}),
                "poststop hook #1: timeout 0 is not greater than zero",
            ),
            (
                json!({"path": "/h", "timeout": i64::MAX}),
                "poststop hook #1: timeout 9223372036854775807 is greater than 9223372036",
            ),
        ] {
            assert_eq!(planned(hook).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_config_without_hooks_has_none() {
        assert!(plan(None).unwrap().at(Point::Prestart).is_empty());
    }
}
