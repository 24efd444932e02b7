//! Gives the config the network namespace that pasta connects.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::NAME;
use crate::error::{Error, Result};
use crate::spec::annotation::NETWORK;

/// Gives the config the network namespace that pasta connects. `privileged`: the runtime is root on the host.
///
/// # Errors
///
/// The runtime is root, or the config joins a network namespace.
pub fn edit(spec: &mut Spec, privileged: bool) -> Result<()> {
    if privileged {
        return Err(Error::config(format!("{NETWORK}={NAME} is for rootless containers")));
    }
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut all = linux.namespaces_mut().take().unwrap_or_default();
    let own = all.iter().find(|n| n.typ() == LinuxNamespaceType::Network);
    let joined = own.and_then(|n| n.path().as_deref()).filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = joined {
        return Err(Error::config(format!(
            "{NETWORK}={NAME} connects a new network namespace, and the config joins {}",
            path.display()
        )));
    }
    if own.is_none() {
        let mut network = LinuxNamespace::default();
        network.set_typ(LinuxNamespaceType::Network);
        all.push(network);
    }
    linux.set_namespaces(Some(all));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"namespaces":{namespaces}}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_config_gets_a_network_namespace() {
        for namespaces in [r#"[]"#, r#"[{"type":"network"}]"#] {
            let mut spec = spec(namespaces);
            edit(&mut spec, false).unwrap();
            let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].typ(), LinuxNamespaceType::Network);
        }
        let mut joins = spec(r#"[{"type":"network","path":"/n"}]"#);
        assert!(edit(&mut joins, false).unwrap_err().to_string().ends_with("the config joins /n"));
        assert!(edit(&mut spec("[]"), true).is_err());
    }
}
