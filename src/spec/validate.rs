//! Checks rules of the specification that belong to no single concern.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec, User};

use crate::error::{Error, Result};

/// Checks that required fields exist.
///
/// # Errors
///
/// `root`, `process` or `linux` is missing, or the process is invalid: see [`validate_process`].
pub fn validate(spec: &Spec) -> Result<()> {
    let root = spec.root().as_ref().ok_or_else(|| Error::config("root must be specified"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::config("root.path must not be empty"));
    }
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::config("process property must not be empty"))?;
    validate_process(process)?;
    if spec.linux().is_none() {
        return Err(Error::config("linux property must not be empty")
            .hint("add linux to config.json: Aril runs only Linux containers"));
    }
    Ok(())
}

/// Returns true if the container has a namespace of that kind, created or joined.
pub fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref();
    linux.and_then(|l| l.namespaces().as_ref()).into_iter().flatten().any(|n| n.typ() == kind)
}

/// Checks a process of config.json or of `exec`.
///
/// # Errors
///
/// `args` is empty, `cwd` is not absolute, or an ID is 4294967295.
pub fn validate_process(process: &Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::config("args must not be empty"));
    }
    let cwd: &Path = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(Error::config("Cwd property must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(Error::config(format!("Cwd must be an absolute path: {}", cwd.display())));
    }
    validate_user(process.user())
}

/// Rejects the ID -1, with which setresuid(2) and related calls change nothing: the program would stay root.
fn validate_user(user: &User) -> Result<()> {
    let additional = user.additional_gids().iter().flatten();
    let ids = [("user.uid", user.uid()), ("user.gid", user.gid())];
    let mut ids = ids.into_iter().chain(additional.map(|gid| ("user.additionalGids", *gid)));
    if let Some((field, id)) = ids.find(|(_, id)| *id == u32::MAX) {
        return Err(Error::config(format!("{field}: {id} is not an id")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        let spec = serde_json::from_str(json).unwrap();
        validate(&spec).unwrap_err().to_string()
    }

    #[test]
    fn required_fields() {
        assert_eq!(refusal(r#"{"ociVersion":"1.0.0"}"#), "root must be specified");
        assert_eq!(
            refusal(r#"{"ociVersion":"1.0.0","root":{"path":"r"}}"#),
            "process property must not be empty"
        );
        let process = |p: &str| {
            refusal(&format!(r#"{{"ociVersion":"1.0.0","root":{{"path":"r"}},"process":{p}}}"#))
        };
        assert_eq!(
            process(r#"{"user":{"uid":0,"gid":0},"cwd":"/","args":[]}"#),
            "args must not be empty"
        );
        assert_eq!(
            process(r#"{"user":{"uid":0,"gid":0},"cwd":"","args":["a"]}"#),
            "Cwd property must not be empty"
        );
        assert!(
            process(r#"{"user":{"uid":0,"gid":0},"cwd":"x","args":["a"]}"#)
                .starts_with("Cwd must be an absolute path")
        );
        for (field, user) in [
            ("user.uid", r#"{"uid":4294967295,"gid":0}"#),
            ("user.gid", r#"{"uid":0,"gid":4294967295}"#),
            ("user.additionalGids", r#"{"uid":0,"gid":0,"additionalGids":[1,4294967295]}"#),
        ] {
            let text = process(&format!(r#"{{"user":{user},"cwd":"/","args":["a"]}}"#));
            assert_eq!(text, format!("{field}: 4294967295 is not an id"));
        }
    }
}
