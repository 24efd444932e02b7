//! `aril explain`: reports what a container may do to its host, in plain words.
//!
//! A pure function of the config and a few facts. Each [`Finding`] is graded by comparison with what engines give a
//! container by default. The config has the grade of its worst finding. A grade says if a hostile program in the
//! container gains power over the host, not if the config is sensible.

mod isolation;
mod kernel;
mod privileges;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::Serialize;

use crate::error::Result;
use crate::spec::OperatorGrant;

/// Grade of a finding, from the least to the most power over the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Less than engines give by default.
    Tight,
    /// What engines give by default.
    Usual,
    /// More than engines give by default: there should be a known reason.
    Loose,
    /// A program in the container can become root of the host, or gain equal power.
    Open,
}

impl Grade {
    /// Name of the grade in the output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tight => "tight",
            Self::Usual => "usual",
            Self::Loose => "loose",
            Self::Open => "open",
        }
    }

    /// Explanation of the grade.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Tight => "less than engines give by default",
            Self::Usual => "what engines give by default",
            Self::Loose => "more than engines give by default",
            Self::Open => "a program in the container can take over the host",
        }
    }
}

/// Statement about one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub topic: &'static str,
    pub grade: Grade,
    pub text: String,
}

/// Result of `aril explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub grade: Grade,
    /// Findings in the order of topics.
    pub findings: Vec<Finding>,
}

/// Properties of the host and the caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// The caller is not root, so no process of the container is root on the host.
    pub rootless: bool,
    pub apparmor: bool,
    pub selinux: bool,
    pub landlock: Option<u32>,
}

/// Explains a config.
pub fn explain(spec: &Spec, grant: &OperatorGrant, facts: &Facts) -> Result<Explanation> {
    let subject = Subject::new(spec, grant, facts);
    let mut findings = Vec::new();
    privileges::user(&subject, &mut findings);
    privileges::no_new_privileges(&subject, &mut findings);
    privileges::capabilities(&subject, &mut findings);
    isolation::namespaces(&subject, &mut findings);
    isolation::mounts(&subject, &mut findings);
    isolation::devices(&subject, &mut findings);
    isolation::hooks(&subject, &mut findings);
    kernel::seccomp(&subject, &mut findings);
    kernel::proc_and_sys(&subject, &mut findings);
    kernel::sysctls(&subject, &mut findings);
    kernel::security_modules(&subject, &mut findings);
    kernel::landlock(&subject, &mut findings)?;
    kernel::limits(&subject, &mut findings);
    let grade = findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Tight);
    Ok(Explanation { grade, findings })
}

/// The config, and facts that most topics depend on.
struct Subject<'a> {
    spec: &'a Spec,
    grant: &'a OperatorGrant,
    facts: &'a Facts,
    /// Root in the container is an unprivileged user on the host: by a user namespace, or because the caller is not
    /// root.
    mapped: bool,
}

impl<'a> Subject<'a> {
    fn new(spec: &'a Spec, grant: &'a OperatorGrant, facts: &'a Facts) -> Self {
        let maps = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_deref());
        let holds_root = maps.unwrap_or_default().iter().any(|map| map.host_id() == 0);
        let user = crate::spec::has_namespace(spec, LinuxNamespaceType::User);
        let mapped = facts.rootless || grant.userns.is_some() || (user && !holds_root);
        Self { spec, grant, facts, mapped }
    }

    /// Lowers a grade to `Loose` if only root on the host could exploit the finding.
    fn if_root(&self, grade: Grade) -> Grade {
        if self.mapped { grade.min(Grade::Loose) } else { grade }
    }

    fn has(&self, kind: LinuxNamespaceType) -> bool {
        let made = match kind {
            LinuxNamespaceType::User => self.grant.userns.is_some(),
            LinuxNamespaceType::Network => match self.grant.network.as_deref() {
                Some("host") => return false,
                other => other.is_some(),
            },
            _ => false,
        };
        made || crate::spec::has_namespace(self.spec, kind)
    }

    /// All capabilities that a program in the container can hold, without the prefix `CAP_`.
    fn capabilities(&self) -> Vec<String> {
        let sets = self.spec.process().as_ref().and_then(|p| p.capabilities().as_ref());
        let Some(sets) = sets else { return Vec::new() };
        let all = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable()];
        let names = all.into_iter().flatten().flatten().map(ToString::to_string);
        let mut names: Vec<_> =
            names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn add(findings: &mut Vec<Finding>, topic: &'static str, grade: Grade, text: impl Into<String>) {
    findings.push(Finding { topic, grade, text: text.into() });
}
