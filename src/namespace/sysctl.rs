//! Checks sysctls: only those of a namespace that the container does not share can be set.

use std::collections::HashMap;

use super::plan::Plan;
use super::{Kind, Step};
use crate::error::{Error, Result};
use crate::path::c_string;

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn plan(
    sysctls: Option<&HashMap<String, String>>,
    namespaces: &Plan,
    joins_host_network: bool,
    domainname: Option<&str>,
) -> Result<Vec<Step>> {
    let Some(sysctls) = sysctls else { return Ok(Vec::new()) };
    // The order of a hash map would differ from run to run.
    let mut entries: Vec<_> = sysctls.iter().collect();
    entries.sort();
    entries
        .into_iter()
        .map(|(name, value)| {
            let dotted = normalise(name);
            allowed(&dotted, namespaces, joins_host_network)?;
            if dotted == "kernel.domainname"
                && domainname.is_some_and(|field| !field.is_empty() && field != value)
            {
                return Err(Error::config(format!(
                    "sysctl {name:?} conflicts with the field domainname: {value:?} and {:?}",
                    domainname.unwrap_or_default()
                )));
            }
            let path = format!("sys/{}", dotted_to_path(&dotted));
            let key = c_string("linux.sysctl", path.as_bytes())?;
            // A NUL or a line break would hide a second value (CVE-2022-0811's class).
            if value.contains(['\0', '\n']) {
                return Err(Error::config(format!(
                    "sysctl {name:?}: value {value:?} is not one line"
                )));
            }
            Ok(Step::Sysctl { key, value: value.clone().into_bytes() })
        })
        .collect()
}

/// Returns the dotted form of a name. If the first separator is a slash, the name is a path, and a dot is part of a
/// component (`net/ipv4/conf/eth0.100/forwarding`). As in sysctl(8), dots and slashes are exchanged then.
fn normalise(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn dotted_to_path(dotted: &str) -> String {
    dotted
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

fn allowed(name: &str, namespaces: &Plan, joins_host_network: bool) -> Result<()> {
    let refuse = |text: String| Err(Error::config(text));
    if dotted_to_path(name).split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse(format!("sysctl {name:?} is not a name under /proc/sys"));
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return if namespaces.has(Kind::Ipc) {
            Ok(())
        } else {
            refuse(format!("sysctl {name:?} is not allowed in the hosts ipc namespace"))
        };
    }
    if name.starts_with("net.") {
        return if !namespaces.has(Kind::Net) || joins_host_network {
            refuse(format!("sysctl {name:?} not allowed in host network namespace"))
        } else {
            Ok(())
        };
    }
    if name.starts_with("user.") {
        return if namespaces.has(Kind::User) {
            Ok(())
        } else {
            refuse(format!("setting ucounts without a user namespace not allowed: {name}"))
        };
    }
    match name {
        "kernel.domainname" if namespaces.has(Kind::Uts) => Ok(()),
        "kernel.domainname" => {
            refuse(format!("sysctl {name:?} is not allowed in the hosts uts namespace"))
        }
        "kernel.hostname" => {
            refuse(format!("sysctl {name:?} conflicts with the field hostname: use that"))
        }
        _ => refuse(format!("sysctl {name:?} is not in a separate kernel namespace")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{NamespaceRequest, plan};
    use oci_spec::runtime::LinuxNamespace;
    use std::collections::HashMap;

    fn outcome(namespaces: &str, name: &str) -> Result<String, String> {
        let ns: Vec<LinuxNamespace> = serde_json::from_str(namespaces).unwrap();
        let map = HashMap::from([(name.to_owned(), "1".to_owned())]);
        plan(&NamespaceRequest {
            namespaces: &ns,
            sysctl: Some(&map),
            ..NamespaceRequest::default()
        })
        .map(|p| p.sysctls[0].to_string())
        .map_err(|e| e.to_string())
    }

    #[test]
    fn rules() {
        let net = r#"[{"type":"network"}]"#;
        assert_eq!(outcome(net, "net.core.somaxconn").unwrap(), "sysctl net/core/somaxconn = 1");
        assert_eq!(outcome(net, "net/core/somaxconn").unwrap(), "sysctl net/core/somaxconn = 1");
        assert!(
            outcome("[]", "net.core.somaxconn").unwrap_err().contains("host network namespace")
        );
        assert!(outcome(net, "kernel.sem").unwrap_err().contains("hosts ipc namespace"));
        assert!(outcome(net, "vm.swappiness").unwrap_err().contains("not in a separate kernel"));
        assert!(outcome(net, "kernel.hostname").unwrap_err().contains("conflicts"));
        assert!(outcome(net, "user.max_x").unwrap_err().contains("ucounts"));
        assert!(outcome(net, "net.ipv4/../../kernel/core_pattern").is_err());
        assert!(outcome(net, "net/../kernel/core_pattern").is_err());
    }

    #[test]
    fn a_dot_inside_a_component() {
        let net = r#"[{"type":"network"}]"#;
        let ns: Vec<LinuxNamespace> = serde_json::from_str(net).unwrap();
        for name in ["net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"] {
            let map = HashMap::from([(name.to_owned(), "1".to_owned())]);
            let p = plan(&NamespaceRequest {
                namespaces: &ns,
                sysctl: Some(&map),
                ..NamespaceRequest::default()
            })
            .unwrap();
            let super::Step::Sysctl { key, .. } = &p.sysctls[0] else { panic!() };
            assert_eq!(key.to_str().unwrap(), "sys/net/ipv4/conf/eth0.1/forwarding");
        }
    }
}
