//! Lists which system calls of the native architecture a profile allows, for `aril explain`.
//!
//! The kernel's program is made from [`super::profile`], not from this list.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use super::Arch;
use super::syscalls::Finder;

/// Effect of a profile on a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// The arguments of the call, or an agent or tracer, decide.
    ByArguments,
    Refused,
}

impl Verdict {
    fn of(action: Action) -> Self {
        match action {
            Action::ScmpActAllow | Action::ScmpActLog => Self::Allowed,
            Action::ScmpActNotify | Action::ScmpActTrace => Self::ByArguments,
            _ => Self::Refused,
        }
    }
}

/// Returns the effect on each system call of the native architecture, by name.
pub fn of(profile: &LinuxSeccomp) -> BTreeMap<&'static str, Verdict> {
    let default = Verdict::of(profile.default_action());
    let mut verdicts: BTreeMap<_, _> =
        Finder::native(Arch::native()).map(|name| (name, (default, false))).collect();
    for rule in profile.syscalls().iter().flatten() {
        let verdict = Verdict::of(rule.action());
        let conditional = rule.args().as_ref().is_some_and(|args| !args.is_empty());
        for name in rule.names() {
            match verdicts.get_mut(name.as_str()) {
                // The first rule without conditions decides.
                Some((current, decided)) if !*decided => {
                    if !conditional {
                        (*current, *decided) = (verdict, true);
                    } else if *current != verdict {
                        *current = Verdict::ByArguments;
                    }
                }
                _ => {}
            }
        }
    }
    verdicts.into_iter().map(|(name, (verdict, _))| (name, verdict)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_with_and_without_conditions() {
        let argument = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "nosuchcall"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": argument},
            {"names": ["mount", "read"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "args": argument},
        ]});
        let profile = serde_json::from_value(profile).unwrap();
        let verdicts = of(&profile);
        for (name, verdict) in [
            ("read", Verdict::Allowed),
            ("clone", Verdict::ByArguments),
            ("mount", Verdict::ByArguments),
            ("bpf", Verdict::Refused),
            ("ptrace", Verdict::Refused),
        ] {
            assert_eq!(verdicts[name], verdict, "{name}");
        }
        assert!(verdicts.len() > 300 && !verdicts.contains_key("nosuchcall"));
    }
}
