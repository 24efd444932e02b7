//! Plans the identity from `process`, without system calls.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, User};

use super::{Keyring, Names, Step, names};
use crate::error::{Error, Result};
use crate::path::c_path;
use crate::sys::process::CapabilitySets;

/// Umask of a process whose config has none.
const UMASK: u32 = 0o022;

/// `KEY_USR_SEARCH`: allows an exec process to join the keyring by name.
const SEARCH_AS_USER: u32 = 0x0008_0000;
/// `KEY_OTH_SEARCH`: allows the same in a user namespace, where the kernel may see the joining process as another user.
const SEARCH_AS_OTHER: u32 = 0x0000_0008;

/// Fields and facts that the identity of a process depends on.
pub struct IdentityRequest<'a> {
    /// ID of the container.
    pub id: &'a str,
    pub process: &'a Process,
    /// Container's process, for an exec process, which inherits settings that its own process lacks.
    pub container: Option<&'a Process>,
    pub new_keyring: bool,
    /// True if another concern (Landlock) needs no_new_privs, independent of the process.
    pub confined: bool,
    /// True to keep the caller's supplementary groups: `run.oci.keep_original_groups`.
    pub keep_groups: bool,
    /// Permitted capabilities of the runtime. `None` in a user namespace, where the process has all.
    pub held: Option<u64>,
    pub user_namespace: bool,
    /// True if the runtime is not root.
    pub rootless: bool,
    /// False if `/proc/<pid>/setgroups` of the container's user namespace is `deny`.
    pub setgroups_allowed: bool,
    /// Security modules, only set if the process has a label: see [`super::parent::security_modules`].
    pub modules: SecurityModules,
}

/// Enabled security modules with labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecurityModules {
    pub apparmor: bool,
    pub selinux: bool,
}

/// Steps of a process that set its identity.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Step in the container's root, before the root becomes read-only.
    pub make_cwd: Option<Step>,
    /// Steps before a seccomp filter that is loaded with privileges.
    pub early: Vec<Step>,
    /// Steps after that filter, and before one that is loaded with no_new_privs.
    pub late: Vec<Step>,
    pub warnings: Vec<String>,
    pub no_new_privileges: bool,
}

/// Plans the identity of a process.
///
/// # Errors
///
/// The working directory is not absolute, a label needs a security module that is disabled, the effective set contains
/// capabilities that the permitted one lacks, or a rootless container has additional groups without setgroups(2).
pub fn plan(request: &IdentityRequest) -> Result<Plan> {
    let process = request.process;
    let user = process.user();
    let cwd = cwd(process.cwd())?;
    let no_new_privileges = request.confined || process.no_new_privileges().unwrap_or(false);
    let (sets, warnings) = capabilities(request.inherited(Process::capabilities), request.held)?;

    let selinux = request.selinux_label()?;
    let mut early = Vec::new();
    if request.new_keyring {
        early.push(Step::SessionKeyring(keyring(request, selinux.clone())?));
    }
    let make = request.container.is_none() && cwd.as_c_str() != c"/";
    let make_cwd = make.then(|| Step::MakeCwd(cwd.clone()));
    early.push(Step::EnterCwd(cwd.clone()));
    early.push(Step::Umask(umask(request.container.unwrap_or(process).user())));
    if let Some(profile) = request.apparmor_profile()? {
        early.push(Step::AppArmor { command: format!("exec {profile}") });
    }
    if no_new_privileges {
        early.push(Step::NoNewPrivileges);
    }
    early.extend(selinux.map(Step::SelinuxLabel));

    let mut late = vec![
        Step::Bounding { keep: sets.bounding },
        Step::KeepCapabilities,
        Step::StdioOwner { uid: user.uid(), gid: user.gid() },
    ];
    late.extend(groups(request)?);
    late.push(Step::Gid(user.gid()));
    late.push(Step::Uid(user.uid()));
    late.push(Step::CheckCwd { path: cwd });
    late.push(Step::Capabilities(sets.of_task));
    late.push(Step::Ambient(sets.ambient));
    Ok(Plan { make_cwd, early, late, no_new_privileges, warnings })
}

impl IdentityRequest<'_> {
    /// Returns a setting of the process, or else of its container.
    fn inherited<T>(&self, field: impl Fn(&Process) -> &Option<T>) -> Option<&T> {
        field(self.process).as_ref().or_else(|| self.container.and_then(|c| field(c).as_ref()))
    }

    /// Returns a text setting of the process, or else of its container. An empty text counts as unset.
    fn inherited_text(&self, field: impl Fn(&Process) -> &Option<String>) -> Option<&str> {
        [Some(self.process), self.container]
            .into_iter()
            .flatten()
            .find_map(|process| field(process).as_deref().filter(|text| !text.is_empty()))
    }

    fn apparmor_profile(&self) -> Result<Option<&str>> {
        let profile = self.inherited_text(Process::apparmor_profile);
        if profile.is_some() && !self.modules.apparmor {
            return Err(Error::config("apparmor: config provided but apparmor not supported"));
        }
        Ok(profile)
    }

    fn selinux_label(&self) -> Result<Option<String>> {
        let label = self.inherited_text(Process::selinux_label);
        if label.is_some() && !self.modules.selinux {
            return Err(Error::config(
                "selinux label is specified in config, but selinux is disabled or not supported",
            ));
        }
        Ok(label.map(str::to_owned))
    }
}

fn keyring(request: &IdentityRequest, label: Option<String>) -> Result<Keyring> {
    let name = CString::new(format!("_ses.{}", request.id))
        .map_err(|_| Error::config("container id contains a nul byte"))?;
    let search = if request.user_namespace { SEARCH_AS_OTHER } else { SEARCH_AS_USER };
    let permissions = request.container.is_none().then_some(search);
    Ok(Keyring { name, permissions, label })
}

fn cwd(path: &Path) -> Result<CString> {
    if path.as_os_str().is_empty() {
        return Err(Error::config("Cwd property must not be empty"));
    }
    if !path.is_absolute() {
        return Err(Error::config("Cwd must be an absolute path"));
    }
    c_path("cwd", path)
}

/// Returns the umask. Other bits are ignored, as in the kernel and other runtimes.
fn umask(user: &User) -> u32 {
    user.umask().map_or(UMASK, |mask| mask & 0o777)
}

/// Returns the step that sets the additional groups. An empty list is set too, to drop the caller's groups.
fn groups(request: &IdentityRequest) -> Result<Option<Step>> {
    if request.keep_groups {
        return Ok(None);
    }
    let gids = request.process.user().additional_gids().clone().unwrap_or_default();
    if request.rootless && !request.setgroups_allowed && !gids.is_empty() {
        return Err(Error::config("cannot set any additional groups in a rootless container")
            .hint("map a range of group IDs from /etc/subgid; with a mapping of only the caller's ID, the kernel denies setgroups(2)"));
    }
    Ok(request.setgroups_allowed.then_some(Step::Groups(gids)))
}

#[derive(Default)]
struct Sets {
    bounding: u64,
    of_task: CapabilitySets,
    ambient: u64,
}

/// Returns the capability sets. Without a capabilities object they are empty.
///
/// A capability that the runtime itself lacks cannot be granted. The specification requires a warning and no error for
/// it (config.md, `process.capabilities`).
fn capabilities(
    spec: Option<&LinuxCapabilities>,
    held: Option<u64>,
) -> Result<(Sets, Vec<String>)> {
    let Some(spec) = spec else { return Ok(Default::default()) };
    let mut of_task = CapabilitySets {
        effective: mask(spec.effective()),
        permitted: mask(spec.permitted()),
        inheritable: mask(spec.inheritable()),
    };
    let beyond = of_task.effective & !of_task.permitted;
    if beyond != 0 {
        return Err(Error::config(format!(
            "capabilities: effective has {}, which permitted lacks",
            Names(beyond)
        )));
    }
    let mut warnings = Vec::new();
    let lacking = (of_task.permitted | of_task.inheritable) & !held.unwrap_or(u64::MAX);
    if lacking != 0 {
        warnings.push(format!(
            "ignoring capabilities that the runtime itself lacks: {}",
            names(lacking).join(" ")
        ));
        for set in [&mut of_task.effective, &mut of_task.permitted, &mut of_task.inheritable] {
            *set &= !lacking;
        }
    }
    let wanted = mask(spec.ambient());
    let ambient = wanted & of_task.permitted & of_task.inheritable;
    // One warning per capability, in runc's words.
    warnings.extend(
        names(wanted & !ambient)
            .into_iter()
            .map(|name| format!("can't raise ambient capability {name}: operation not permitted")),
    );
    Ok((Sets { bounding: mask(spec.bounding()), of_task, ambient }, warnings))
}

fn mask(set: &Option<Capabilities>) -> u64 {
    let names = set.iter().flatten();
    // Both crates use the kernel's names.
    names.filter_map(|name| known(&name.to_string())).fold(0, |mask, c| mask | c.bitmask())
}

/// Finds a capability. Names of oci-spec may lack the prefix.
fn known(name: &str) -> Option<caps::Capability> {
    caps::to_canonical(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder, ProcessBuilder, UserBuilder};

    use super::*;

    fn request(process: &Process) -> IdentityRequest<'_> {
        IdentityRequest {
            id: "c1",
            process,
            container: None,
            new_keyring: true,
            confined: false,
            keep_groups: false,
            held: None,
            user_namespace: false,
            rootless: false,
            setgroups_allowed: true,
            modules: SecurityModules::default(),
        }
    }

    fn text(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    fn message(request: &IdentityRequest) -> String {
        plan(request).unwrap_err().to_string()
    }

    fn set(names: &[Capability]) -> Capabilities {
        names.iter().copied().collect()
    }

    #[test]
    fn the_order_is_runcs() {
        let mut process = Process::default();
        process.set_cwd("/srv".into());
        let plan = plan(&request(&process)).unwrap();
        assert_eq!(plan.make_cwd, Some(Step::MakeCwd(c"/srv".into())));
        assert_eq!(
            text(&plan.early),
            [
                "join session keyring _ses.c1",
                "enter working directory /srv",
                "umask 0022",
                "no new privileges",
            ]
        );
        let all = "CAP_KILL,CAP_NET_BIND_SERVICE,CAP_AUDIT_WRITE";
        assert_eq!(
            text(&plan.late),
            [
                format!("bounding set {all}"),
                "keep capabilities across the change of user".into(),
                "change the owner of stdio to uid 0".into(),
                "additional groups []".into(),
                "gid 0".into(),
                "uid 0".into(),
                "check working directory /srv".into(),
                format!("capabilities effective,permitted,inheritable {all}"),
                format!("ambient set {all}"),
            ]
        );
        assert!(plan.no_new_privileges);
    }

    #[test]
    fn every_capability_of_the_spec_has_a_bit() {
        for capability in caps::all() {
            let name: Capability = serde_json::from_str(&format!("\"{capability}\"")).unwrap();
            assert_eq!(mask(&Some(set(&[name]))), capability.bitmask(), "{capability}");
        }
    }

    #[test]
    fn absent_capabilities_are_dropped() {
        let mut process = Process::default();
        process.set_capabilities(None);
        let plan = plan(&request(&process)).unwrap();
        assert!(plan.late.contains(&Step::Bounding { keep: 0 }));
        assert!(plan.late.contains(&Step::Capabilities(CapabilitySets::default())));
    }

    #[test]
    fn an_ambient_capability_that_cannot_be_is_left_out() {
        let mut process = Process::default();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(set(&[]))
            .effective(set(&[]))
            .permitted(set(&[Capability::Kill]))
            .inheritable(set(&[]))
            .ambient(set(&[Capability::Kill]))
            .build()
            .unwrap();
        process.set_capabilities(Some(capabilities));
        let plan = plan(&request(&process)).unwrap();
        assert!(plan.late.contains(&Step::Ambient(0)));
    }

    #[test]
    fn effective_needs_permitted() {
        let mut process = Process::default();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .effective(set(&[Capability::Kill]))
            .permitted(set(&[]))
            .build()
            .unwrap();
        process.set_capabilities(Some(capabilities));
        assert_eq!(
            message(&request(&process)),
            "capabilities: effective has CAP_KILL, which permitted lacks"
        );
    }

    #[test]
    fn an_exec_takes_the_containers_settings() {
        let user = UserBuilder::default().umask(0o077u32).build().unwrap();
        let container = ProcessBuilder::default()
            .user(user)
            .cwd("/")
            .apparmor_profile("confined")
            .build()
            .unwrap();
        let mut process = Process::default();
        process.set_capabilities(None).set_no_new_privileges(None);
        process.set_apparmor_profile(Some(String::new()));
        let mut request = request(&process);
        request.container = Some(&container);
        request.modules.apparmor = true;
        let plan = plan(&request).unwrap();
        assert_eq!(
            text(&plan.early),
            [
                "join session keyring _ses.c1",
                "enter working directory /",
                "umask 0077",
                "apparmor profile confined",
            ]
        );
        assert!(!plan.late.contains(&Step::Bounding { keep: 0 }));
        let Step::SessionKeyring(ring) = &plan.early[0] else { panic!() };
        assert_eq!(ring.permissions, None);
    }

    #[test]
    fn labels_need_their_module() {
        let mut process = Process::default();
        process.set_apparmor_profile(Some("p".into()));
        assert_eq!(
            message(&request(&process)),
            "apparmor: config provided but apparmor not supported"
        );
        process.set_apparmor_profile(None).set_selinux_label(Some("l".into()));
        assert_eq!(
            message(&request(&process)),
            "selinux label is specified in config, but selinux is disabled or not supported"
        );
    }

    #[test]
    fn groups_of_the_rootless() {
        let user = UserBuilder::default().additional_gids([5u32]).build().unwrap();
        let mut process = Process::default();
        process.set_user(user);
        let mut request = request(&process);
        request.setgroups_allowed = false;
        assert!(!plan(&request).unwrap().late.iter().any(|s| matches!(s, Step::Groups(_))));
        request.rootless = true;
        assert_eq!(message(&request), "cannot set any additional groups in a rootless container");
        request.setgroups_allowed = true;
        assert!(plan(&request).unwrap().late.contains(&Step::Groups(vec![5])));
    }

    #[test]
    fn cwd_and_umask_are_checked() {
        let mut process = Process::default();
        process.set_cwd("".into());
        assert_eq!(message(&request(&process)), "Cwd property must not be empty");
        process.set_cwd("tmp".into());
        assert_eq!(message(&request(&process)), "Cwd must be an absolute path");
        process.set_cwd("/".into());
        process.set_user(UserBuilder::default().umask(0o1077u32).build().unwrap());
        let plan = plan(&request(&process)).unwrap();
        assert_eq!(plan.make_cwd, None);
        assert!(plan.early.contains(&Step::Umask(0o077)));
    }
}
