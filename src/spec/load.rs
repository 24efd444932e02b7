//! Parses config.json and process.json into oci-spec's types. It accepts what runc accepts, and errors name the field.

use std::fs;
use std::path::Path;

use oci_spec::runtime::{
    Capability, IOPriorityClass, LinuxNamespaceType, LinuxResources, MemoryPolicyFlagType,
    MemoryPolicyModeType, Mount, Process, Spec,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::edit::Edits;
use super::field_path;
use super::lenient::{self, Lenient, Missing};
use crate::error::{Context, Error, OsContext, Result};

/// Loaded config.json.
#[derive(Debug, Clone)]
pub struct Config {
    pub spec: Spec,
    /// Text of the document, which is stored beside the record. Later commands read it, and do not depend on the
    /// bundle.
    pub bytes: Vec<u8>,
    pub warnings: Vec<String>,
    /// True while the spec has changes that `bytes` lacks.
    changed: bool,
}

impl Config {
    /// Returns the spec for a change, which [`Config::encode_changes`] adds to the bytes.
    pub fn change(&mut self) -> &mut Spec {
        self.changed = true;
        &mut self.spec
    }

    /// Encodes the spec if it was changed, so that later commands read what this one planned.
    ///
    /// # Errors
    ///
    /// The spec cannot be encoded.
    pub fn encode_changes(&mut self) -> Result<()> {
        if std::mem::take(&mut self.changed) { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        self.bytes = serde_json::to_vec(&self.spec)
            .map_err(|e| Error::config(format!("encode config.json: {e}")))?;
        Ok(())
    }
}

/// Loads `<bundle>/config.json`.
///
/// # Errors
///
/// The file does not exist, cannot be read, or is invalid: see [`parse`].
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

/// Loads a config.json with another name.
///
/// # Errors
///
/// The file cannot be read, or is invalid: see [`parse`].
pub fn load_file(path: &Path) -> Result<Config> {
    let bytes = fs::read(path).os("read", path.display())?;
    parse(bytes).context(|| format!("load {}", path.display()))
}

impl Config {
    /// Applies options, and updates the text, so that later commands see the same spec.
    ///
    /// # Errors
    ///
    /// The errors of [`Edits::apply`].
    pub fn edited(mut self, edits: &Edits) -> Result<Self> {
        edits.apply(&mut self.spec)?;
        self.encode()?;
        Ok(self)
    }
}

/// Parses the text of a config.json.
///
/// # Errors
///
/// The text is not JSON, a field has a wrong type or value, or a required field is missing.
pub fn parse(bytes: Vec<u8>) -> Result<Config> {
    let (mut spec, warnings) = tolerant(&bytes)?;
    ignore_id_maps_without_user_namespace(&mut spec);
    remove_absent_pids_limit(&mut spec, &bytes);
    require_io_class(spec.process().as_ref(), &bytes)?;
    Ok(Config { spec, bytes, warnings, changed: false })
}

/// Removes id mappings without a user namespace, which runc and crun ignore too.
fn ignore_id_maps_without_user_namespace(spec: &mut Spec) {
    if super::has_namespace(spec, LinuxNamespaceType::User) {
        return;
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }
}

/// Removes `linux.resources.pids` if it has no limit, or null. oci-spec's type makes it 0, which would be a limit of
/// one process.
fn remove_absent_pids_limit(spec: &mut Spec, bytes: &[u8]) {
    let Some(linux) = spec.linux_mut() else { return };
    let Some(resources) = linux.resources_mut() else { return };
    if resources.pids().as_ref().is_none_or(|pids| pids.limit() != 0) {
        return;
    }
    let document = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let pids = ["linux", "resources", "pids"].into_iter().try_fold(&document, lenient::field);
    if !has_limit(pids) {
        resources.set_pids(None);
    }
}

fn has_limit(pids: Option<&Value>) -> bool {
    pids.and_then(|pids| lenient::field(pids, "limit")).is_some_and(|limit| !limit.is_null())
}

/// Rejects a missing I/O class, as the specification requires. oci-spec's type makes it best-effort.
fn require_io_class(process: Option<&Process>, bytes: &[u8]) -> Result<()> {
    let priority = process.and_then(|process| process.io_priority().as_ref());
    if priority.is_none_or(|priority| priority.class() != IOPriorityClass::IoprioClassBe) {
        return Ok(());
    }
    let document = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    check_io_class(document.get("process").unwrap_or(&document))
}

fn check_io_class(process: &Value) -> Result<()> {
    let priority = process.get("ioPriority").and_then(Value::as_object);
    let class = priority.map(|priority| priority.get("class").unwrap_or(&Value::Null));
    match class {
        Some(class) if class.is_null() || class == "" => {
            Err(Error::config("invalid ioPriority.Class: \"\""))
        }
        _ => Ok(()),
    }
}

/// Loads the file of `exec --process`.
///
/// # Errors
///
/// The file cannot be read, or is invalid: see [`parse`].
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>)> {
    let bytes = fs::read(path).os("read", path.display())?;
    parse_process(&bytes).context(|| format!("load {}", path.display()))
}

fn parse_process(bytes: &[u8]) -> Result<(Process, Vec<String>)> {
    let (process, warnings) = tolerant(bytes)?;
    require_io_class(Some(&process), bytes)?;
    Ok((process, warnings))
}

/// Loads the file of the command `mounts`: a list with the format of `mounts` in a config.json.
///
/// # Errors
///
/// The file cannot be read, is not an array, or has an invalid mount.
pub fn load_mounts(path: &Path) -> Result<Vec<Mount>> {
    let bytes = fs::read(path).os("read", path.display())?;
    let document: Value = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(&bytes, &e))
        .context(|| format!("load {}", path.display()))?;
    if !document.is_array() {
        let text = format!("load {}: mounts must be an array", path.display());
        return Err(Error::config(text)
            .hint("write a JSON array with the format of `mounts` in config.json"));
    }
    read(&bytes, Missing::Error)
        .map_err(|e| invalid(&bytes, &e))
        .context(|| format!("load {}", path.display()))
}

/// Parses the document of `update --resources`.
///
/// # Errors
///
/// The text is not JSON, or a field has a wrong type or value.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources> {
    let mut document: Value = serde_json::from_slice(bytes).map_err(|e| invalid(bytes, &e))?;
    // pids without a limit changes nothing. oci-spec's type would make the limit 0.
    if !has_limit(lenient::field(&document, "pids"))
        && let Some(fields) = document.as_object_mut()
    {
        fields.retain(|name, _| !name.eq_ignore_ascii_case("pids"));
    }
    lenient::merge_duplicates(&mut document);
    reread(&document).map_err(|e| {
        // The error of the original text has the field's position.
        invalid(bytes, &read::<LinuxResources>(bytes, Missing::Error).err().unwrap_or(e))
    })
}

fn invalid(text: &[u8], error: &serde_json::Error) -> Error {
    Error::config(format!("invalid JSON document: {}", field_path::with_field(text, error)))
}

fn read<T: DeserializeOwned>(bytes: &[u8], missing: Missing) -> serde_json::Result<T> {
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(Lenient(&mut document, missing))?;
    document.end().map(|()| read)
}

/// Reads a changed document. It converts the document to text, because reading a [`Value`] would need the code of all
/// types a second time.
pub(super) fn reread<T: DeserializeOwned>(document: &Value) -> serde_json::Result<T> {
    read(&serde_json::to_vec(document)?, Missing::Zero)
}

fn tolerant<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<String>)> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::config("the file is empty"));
    }
    match read(bytes, Missing::Error) {
        Ok(parsed) => Ok((parsed, Vec::new())),
        Err(e) => parse_repaired(bytes, &e),
    }
}

/// Removes what oci-spec's types reject and runc ignores with a warning, then parses again.
///
/// This is the slow path. If the second attempt fails, it reports the error of the first one, which has the position.
fn parse_repaired<T: DeserializeOwned>(
    bytes: &[u8],
    first: &serde_json::Error,
) -> Result<(T, Vec<String>)> {
    let report = || invalid(bytes, first);
    let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else { return Err(report()) };
    let mut warnings = Vec::new();
    lenient::merge_duplicates(&mut document);
    drop_empty_seccomp(&mut document);
    drop_empty_device_types(&mut document);
    lift_hugepage_limits(&mut document);
    check_memory_policy(&document)?;
    let process =
        if document.get("process").is_some() { &mut document["process"] } else { &mut document };
    drop_unknown_capabilities(process, &mut warnings);
    rename_scheduler_flags(process);
    drop_empty_affinity(process);
    check_io_class(process)?;
    match reread(&document) {
        Ok(parsed) => Ok((parsed, warnings)),
        Err(_) => Err(report()),
    }
}

/// Removes empty types of device rules.
fn drop_empty_device_types(document: &mut Value) {
    let rules = document.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
        if rule.get("type").is_some_and(|kind| kind == "") {
            rule.remove("type");
        }
    }
}

/// Replaces unlimited huge page limits by -1: the largest value in Go's unsigned type does not fit oci-spec's signed
/// type.
fn lift_hugepage_limits(document: &mut Value) {
    let limits = document.pointer_mut("/linux/resources/hugepageLimits");
    let limits = limits.and_then(Value::as_array_mut).into_iter().flatten();
    for limit in limits.filter_map(|limit| limit.get_mut("limit")) {
        if limit.as_u64().is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            *limit = (-1).into();
        }
    }
}

/// Removes empty lists of CPUs.
fn drop_empty_affinity(process: &mut Value) {
    let affinity = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut);
    if let Some(lists) = affinity {
        lists.retain(|_, list| list != "");
    }
}

/// Removes capabilities that this build does not know from `process.capabilities.*`, with a warning: an engine may be
/// newer than the runtime.
fn drop_unknown_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    let mut unknown = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|name| {
            if name.is_null() {
                return false;
            }
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

/// Renames flags of the specification to the names of oci-spec 0.10.
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

/// Rejects unknown memory policies with runc's text, which runc's tests look for.
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

/// Removes a profile without a default action and without rules.
fn drop_empty_seccomp(document: &mut Value) {
    let Some(linux) = document.get_mut("linux").and_then(Value::as_object_mut) else { return };
    let profile = linux.get("seccomp").filter(|profile| profile.is_object());
    let is_empty = profile.is_some_and(|profile| {
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
        assert_eq!(parse(r#"{"Pids":{"LIMIT":0}}"#).unwrap().pids().unwrap().limit(), 0);
        assert_eq!(parse(r#"{"CPU":{"Cpus":"1"},"Pids":{}}"#).unwrap().pids(), &None);
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
    fn what_goes_encoder_writes() {
        let resources = |text: &str| {
            let text = format!(r#"{{"linux":{{"resources":{text}}}}}"#);
            let spec = parse(text.into_bytes()).unwrap().spec;
            spec.linux().as_ref().unwrap().resources().clone().unwrap()
        };
        let huge = resources(
            r#"{"hugepageLimits":[{"pagesize":"2MB","limit":18446744073709551615},
                {"pageSize":"1GB","limit":5}]}"#,
        );
        let limits = huge.hugepage_limits().clone().unwrap();
        assert_eq!((limits[0].page_size().as_str(), limits[0].limit()), ("2MB", -1));
        assert_eq!(limits[1].limit(), 5);
        let cpu = resources(r#"{"cpu":{"shares":5},"CPU":{"Cpus":"0"},"Pids":{}}"#);
        let (pids, cpu) = (*cpu.pids(), cpu.cpu().clone().unwrap());
        assert_eq!((pids, cpu.shares(), cpu.cpus().as_deref()), (None, Some(5), Some("0")));
        let devices = resources(r#"{"devices":[{"allow":true,"type":"","access":"r"}]}"#);
        assert_eq!(devices.devices().as_ref().unwrap()[0].typ(), None);
    }

    #[test]
    fn fields_of_a_process_that_are_empty() {
        let parse = |text: &str| parse_process(text.as_bytes()).map_err(|e| e.to_string());
        let affinity = r#"{"execCPUAffinity":{"initial":"","final":"1"}}"#;
        let (process, _) = parse(affinity).unwrap();
        let affinity = process.exec_cpu_affinity().clone().unwrap();
        assert_eq!(
            (affinity.initial(), affinity.cpu_affinity_final().as_deref()),
            (&None, Some("1"))
        );
        let bounding = r#"{"capabilities":{"bounding":[null,"CAP_KILL"]}}"#;
        let (process, warnings) = parse(bounding).unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert_eq!((sets.bounding().as_ref().unwrap().len(), warnings.len()), (1, 0));
        for class in ["{}", r#"{"class":null}"#, r#"{"priority":3}"#] {
            let text = parse(&format!(r#"{{"ioPriority":{class}}}"#)).unwrap_err();
            assert_eq!(text, "invalid ioPriority.Class: \"\"");
        }
        assert!(parse(r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE"}}"#).is_ok());
    }

    #[test]
    fn arrays_are_no_objects() {
        for text in [
            r#"{"process":[]}"#,
            r#"{"hooks":[]}"#,
            r#"{"linux":{"resources":[]}}"#,
            r#"{"linux":{"seccomp":[]}}"#,
            r#"{"mounts":[["/a","tmpfs"]]}"#,
        ] {
            assert!(parse(text.as_bytes().to_vec()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_version_is_tolerated() {
        assert!(parse(br#"{"root":{"path":"rootfs"}}"#.to_vec()).is_ok());
    }
}
