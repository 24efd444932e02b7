//! From bytes to oci-spec's types, with runc's tolerance and errors that name the place.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{
    Capability, LinuxNamespaceType, LinuxResources, MemoryPolicyFlagType, MemoryPolicyModeType,
    Process, Spec,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::edit::Edits;
use super::place;
use crate::error::{Context, Error, OsContext, Result};

#[derive(Debug, Clone)]
pub struct Config {
    pub spec: Spec,
    /// As read: kept beside the record, so that later verbs do not depend on the bundle.
    pub bytes: Vec<u8>,
    pub warnings: Vec<String>,
}

impl Config {
    /// What later verbs read is what was made of it.
    pub fn encode(&mut self) -> Result<()> {
        self.bytes = serde_json::to_vec(&self.spec)
            .map_err(|e| Error::config(format!("encode config.json: {e}")))?;
        Ok(())
    }
}

/// Loads `<bundle>/config.json`.
pub fn load(bundle: &Path) -> Result<Config> {
    let path = bundle.join("config.json");
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::config(format!(
                "JSON specification file config.json not found in {}",
                bundle.display()
            ))
            .hint(
                "a bundle is a directory with config.json and a rootfs: `aril spec` writes one",
            ));
        }
        other => other.os("read", path.display())?,
    };
    parse(bytes).context(|| format!("load {}", path.display()))
}

/// Loads a config.json by another name.
pub fn load_file(path: &Path) -> Result<Config> {
    let bytes = fs::read(path).os("read", path.display())?;
    parse(bytes).context(|| format!("load {}", path.display()))
}

impl Config {
    /// As options have it: what is kept is what is run.
    pub fn edited(mut self, edits: &Edits) -> Result<Self> {
        edits.apply(&mut self.spec)?;
        self.encode()?;
        Ok(self)
    }
}

/// Parses the bytes of a config.json.
pub fn parse(bytes: Vec<u8>) -> Result<Config> {
    let (mut spec, warnings) = tolerant(&bytes)?;
    ignore_id_maps_without_user_namespace(&mut spec);
    forget_absent_pids_limit(&mut spec, &bytes);
    Ok(Config { spec, bytes, warnings })
}

/// Mappings without a user namespace to apply them to are ignored, as runc and crun do.
fn ignore_id_maps_without_user_namespace(spec: &mut Spec) {
    if super::has_namespace(spec, LinuxNamespaceType::User) {
        return;
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }
}

/// `linux.resources.pids` without a limit, or with null, asks for nothing, where oci-spec's type makes
/// it 0, which is a limit of one process.
fn forget_absent_pids_limit(spec: &mut Spec, bytes: &[u8]) {
    let Some(linux) = spec.linux_mut() else { return };
    let Some(resources) = linux.resources_mut() else { return };
    if resources.pids().as_ref().is_none_or(|pids| pids.limit() != 0) {
        return;
    }
    let document = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    if document["linux"]["resources"]["pids"]["limit"].is_null() {
        resources.set_pids(None);
    }
}

/// Loads the file of `exec --process`.
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>)> {
    let bytes = fs::read(path).os("read", path.display())?;
    tolerant(&bytes).context(|| format!("load {}", path.display()))
}

/// Parses the document of `update --resources`.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources> {
    let mut document: Value = serde_json::from_slice(bytes).map_err(|e| invalid(bytes, &e))?;
    let Some(fields) = document.as_object_mut() else {
        return Err(Error::config("invalid JSON document: not an object"));
    };
    // Without a limit it asks for nothing, where oci-spec's type would make it 0.
    if fields.get("pids").is_some_and(|pids| pids["limit"].is_null()) {
        fields.remove("pids");
    }
    serde_json::from_value(document).map_err(|e| {
        // That of the text knows the place, too.
        let of_text = serde_json::from_slice::<LinuxResources>(bytes).err();
        invalid(bytes, &of_text.unwrap_or(e))
    })
}

fn invalid(text: &[u8], error: &serde_json::Error) -> Error {
    Error::config(format!("invalid JSON document: {}", place::with_field(text, error)))
}

fn tolerant<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>)> {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        None => return Err(Error::config("the file is empty")),
        Some(b'{') => {}
        // serde would take an array for a struct, field by field.
        Some(_) => return Err(Error::config("invalid JSON document: not an object")),
    }
    match serde_json::from_slice(bytes) {
        Ok(parsed) => Ok((parsed, Vec::new())),
        Err(e) => mended(bytes, &e),
    }
}

/// The slow path: what oci-spec's types refuse and runc only warns of is taken out, then parsed
/// again. Anything else is reported as the first attempt found it, which knows the place.
fn mended<T: DeserializeOwned>(
    bytes: &[u8],
    first: &serde_json::Error,
) -> Result<(T, Vec<String>)> {
    let report = || invalid(bytes, first);
    let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else { return Err(report()) };
    let mut warnings = Vec::new();
    drop_nulls(&mut document);
    drop_empty_seccomp(&mut document);
    add_zeros(&mut document);
    check_memory_policy(&document)?;
    let process =
        if document.get("process").is_some() { &mut document["process"] } else { &mut document };
    drop_unknown_capabilities(process, &mut warnings);
    rename_scheduler_flags(process);
    add_missing_fields(process);
    match serde_json::from_value(document) {
        Ok(parsed) => Ok((parsed, warnings)),
        Err(_) => Err(report()),
    }
}

/// `null` is what Go's encoder writes for an empty list or pointer, and its decoder takes for a value
/// that is absent.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Numbers and switches that oci-spec requires, and that encoders leave out when they are zero.
fn add_zeros(document: &mut Value) {
    const NUMBERS: [(&str, &[&str]); 5] = [
        ("/process/rlimits", &["soft", "hard"]),
        ("/rlimits", &["soft", "hard"]),
        ("/linux/uidMappings", &["containerID", "hostID", "size"]),
        ("/linux/gidMappings", &["containerID", "hostID", "size"]),
        ("/linux/resources/hugepageLimits", &["limit"]),
    ];
    for (place, names) in NUMBERS {
        for fields in objects(document.pointer_mut(place)) {
            for name in names {
                fields.entry(*name).or_insert_with(|| 0.into());
            }
        }
    }
    for rule in objects(document.pointer_mut("/linux/seccomp/syscalls")) {
        for argument in objects(rule.get_mut("args")) {
            for name in ["index", "value"] {
                argument.entry(name).or_insert_with(|| 0.into());
            }
        }
    }
    for rule in objects(document.pointer_mut("/linux/resources/devices")) {
        rule.entry("allow").or_insert_with(|| false.into());
        if rule.get("type").is_some_and(|kind| kind == "") {
            rule.remove("type");
        }
    }
}

/// The objects of a list, if it is one.
fn objects(list: Option<&mut Value>) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let items = list.and_then(Value::as_array_mut).into_iter().flatten();
    items.filter_map(Value::as_object_mut)
}

/// `process.capabilities.*`: names that this build does not know are ignored with a warning, since
/// an engine may be newer than the runtime.
fn drop_unknown_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    let mut unknown = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let known = name
                .as_str()
                .is_none_or(|n| serde_json::from_value::<Capability>(Value::from(n)).is_ok());
            if !known && !unknown.contains(name) {
                unknown.push(name.clone());
            }
            known
        });
    }
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.iter().filter_map(Value::as_str).collect();
        warnings
            .push(format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" ")));
    }
}

/// The specification's names, where oci-spec 0.10 has others.
fn rename_scheduler_flags(process: &mut Value) {
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            _ => {}
        }
    }
}

/// Who is not named is root; a `cwd` that is missing is to be refused by its name, like an empty
/// one, and not as a matter of JSON.
fn add_missing_fields(process: &mut Value) {
    if let Some(process) = process.as_object_mut().filter(|p| p.contains_key("args")) {
        process.entry("cwd").or_insert_with(|| "".into());
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
}

/// Refused in runc's words, which its tests look for.
fn check_memory_policy(document: &Value) -> Result<()> {
    let Some(policy) = document.pointer("/linux/memoryPolicy") else { return Ok(()) };
    let mode = policy.get("mode").cloned().unwrap_or_else(|| "".into());
    if serde_json::from_value::<MemoryPolicyModeType>(mode.clone()).is_err() {
        return Err(Error::config(format!("invalid memory policy mode {mode}")));
    }
    let flags = policy.get("flags").and_then(Value::as_array).into_iter().flatten();
    for flag in flags {
        if serde_json::from_value::<MemoryPolicyFlagType>(flag.clone()).is_err() {
            return Err(Error::config(format!("invalid memory policy flag {flag}")));
        }
    }
    Ok(())
}

/// A profile without a default action and without rules is none.
fn drop_empty_seccomp(document: &mut Value) {
    let Some(linux) = document.get_mut("linux").and_then(Value::as_object_mut) else { return };
    let is_empty = linux.get("seccomp").is_some_and(|profile| {
        let rules = profile.get("syscalls").and_then(Value::as_array);
        let action = profile.get("defaultAction").and_then(Value::as_str);
        action.is_none_or(str::is_empty) && rules.is_none_or(Vec::is_empty)
    });
    if is_empty {
        linux.remove("seccomp");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        parse(json.as_bytes().to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn broken_documents() {
        assert_eq!(text(""), "the file is empty");
        assert_eq!(text(" \n"), "the file is empty");
        assert!(text(r#"{"ociVersion":"#).contains("line 1 column"));
        assert!(text(r#"{"ociVersion":"1.0.0","hostname":5}"#).contains("invalid type"));
        assert!(text("[]").contains("invalid JSON document"));
    }

    #[test]
    fn unknown_things_are_tolerated() {
        let c = parse(
            br#"{"ociVersion":"9.9.9","future":{"x":1},"process":{"cwd":"/","user":{"uid":0,"gid":0},
                "capabilities":{"bounding":["CAP_KILL","CAP_TELEPORT"]}}}"#
                .to_vec(),
        )
        .unwrap();
        assert_eq!(c.spec.version(), "9.9.9");
        assert_eq!(c.warnings, ["ignoring unknown or unavailable capabilities: [CAP_TELEPORT]"]);
        let caps = c.spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(caps.bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn every_flag_of_a_scheduler_has_its_name() {
        let flags = ["FLAG_RESET_ON_FORK", "FLAG_RECLAIM", "FLAG_DL_OVERRUN", "FLAG_KEEP_POLICY"];
        let more = ["FLAG_KEEP_PARAMS", "FLAG_UTIL_CLAMP_MIN", "FLAG_UTIL_CLAMP_MAX"];
        let all: Vec<_> = flags.iter().chain(&more).map(|flag| format!("SCHED_{flag}")).collect();
        let scheduler = serde_json::json!({"policy": "SCHED_OTHER", "flags": all});
        let process = serde_json::json!({"args": ["a"], "cwd": "/", "scheduler": scheduler});
        let text = serde_json::json!({"process": process}).to_string();
        let spec = parse(text.into_bytes()).unwrap().spec;
        let scheduler = spec.process().as_ref().unwrap().scheduler().as_ref().unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), 7);
    }

    #[test]
    fn an_empty_seccomp_profile_is_none() {
        let c = parse(br#"{"linux":{"seccomp":{"defaultAction":""}}}"#.to_vec()).unwrap();
        assert!(c.spec.linux().as_ref().unwrap().seccomp().is_none());
        assert!(parse(br#"{"linux":{"seccomp":{"defaultAction":"X"}}}"#.to_vec()).is_err());
    }

    #[test]
    fn memory_policies_are_refused_in_runcs_words() {
        for (policy, expected) in [
            ("{}", "invalid memory policy mode \"\""),
            (r#"{"mode":"INTERLEAVE"}"#, "invalid memory policy mode \"INTERLEAVE\""),
            (r#"{"mode":"MPOL_BIND","flags":["x"]}"#, "invalid memory policy flag \"x\""),
        ] {
            assert_eq!(text(&format!(r#"{{"linux":{{"memoryPolicy":{policy}}}}}"#)), expected);
        }
    }

    #[test]
    fn a_missing_cwd_is_left_to_validation() {
        let c = parse(br#"{"process":{"args":["a"]}}"#.to_vec()).unwrap();
        assert_eq!(c.spec.process().as_ref().unwrap().cwd().as_os_str(), "");
    }

    #[test]
    fn resources_ask_for_what_they_name() {
        let parse = |text: &str| parse_resources(text.as_bytes());
        for nothing in ["{}", r#"{"pids":{}}"#, r#"{"pids":{"limit":null},"memory":null}"#] {
            assert_eq!(parse(nothing).unwrap(), LinuxResources::default(), "{nothing}");
        }
        assert_eq!(parse(r#"{"pids":{"limit":0}}"#).unwrap().pids().unwrap().limit(), 0);
        for bad in ["", "[]", "{", r#"{"memory":{"limit":"5"}}"#] {
            let text = parse(bad).unwrap_err().to_string();
            assert!(text.starts_with("invalid JSON document"), "{text}");
        }
    }

    #[test]
    fn zeros_and_nulls_may_be_left_out() {
        let text = r#"{"mounts":null,"annotations":null,"hooks":null,
            "process":{"cwd":"/","args":["a"],"env":null,"rlimits":[{"type":"RLIMIT_CORE"}],
                "user":{"uid":0,"gid":0,"additionalGids":null},"capabilities":null},
            "linux":{"namespaces":[{"type":"user"}],"uidMappings":[{"size":1}],"gidMappings":null,
                "resources":{"devices":[{"type":"","access":"rwm"}],"memory":null},
                "seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                    {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"op":"SCMP_CMP_EQ"}]}]}}}"#;
        let spec = parse(text.into()).unwrap().spec;
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.rlimits().as_ref().unwrap()[0].hard(), 0);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 0);
        let devices = linux.resources().as_ref().unwrap().devices();
        assert!(!devices.as_ref().unwrap()[0].allow());
        let rules = linux.seccomp().as_ref().unwrap().syscalls();
        let argument = &rules.as_ref().unwrap()[0].args().as_ref().unwrap()[0];
        assert_eq!((argument.index(), argument.value()), (0, 0));
    }

    #[test]
    fn id_maps_need_a_user_namespace() {
        let maps = r#"{"linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":1}]}}"#;
        let spec = parse(maps.into()).unwrap().spec;
        assert!(spec.linux().as_ref().unwrap().uid_mappings().is_none());
    }

    #[test]
    fn pids_without_a_limit_are_not_limited() {
        let limit = |pids: &str| {
            let text = format!(r#"{{"linux":{{"resources":{{"pids":{pids}}}}}}}"#);
            let spec = parse(text.into_bytes()).unwrap().spec;
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().map(|p| p.limit())
        };
        for nothing in ["null", "{}", r#"{"limit":null}"#] {
            assert_eq!(limit(nothing), None, "{nothing}");
        }
        assert_eq!((limit(r#"{"limit":0}"#), limit(r#"{"limit":5}"#)), (Some(0), Some(5)));
    }

    #[test]
    fn a_missing_version_is_tolerated() {
        assert!(parse(br#"{"root":{"path":"rootfs"}}"#.to_vec()).is_ok());
    }
}
