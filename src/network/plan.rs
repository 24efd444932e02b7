//! Turns what the operator granted into the container's network mode and attachment. Reads nothing of the host.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::network::definition::{self, DEFAULT};
use crate::network::link::rate::Rate;
use crate::network::pasta;
use crate::network::ports::Published;
use crate::spec::Extensions;
use crate::spec::annotation::{NETWORK, NETWORK_ADDRESS, NETWORK_PUBLISH, NETWORK_RATE};

/// Network namespace of a container. Without a mode, the config decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// New network namespace with loopback only.
    None,
    /// Host's network namespace.
    Host,
    Bridge(String),
    /// Network namespace of another container.
    Container(ContainerId),
    /// Network namespace at a path.
    Path(PathBuf),
}

/// Attachment of a container to a network of Aril.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    pub network: String,
    pub published: Vec<Published>,
    /// Requested addresses; for a family without one, a free address is leased.
    pub addresses: Vec<IpAddr>,
    pub rate: Option<Rate>,
    /// Publish ports even if a process of the host listens on them.
    pub over_listeners: bool,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a link to network {}", self.network)?;
        self.addresses.iter().try_for_each(|address| write!(f, ", address {address}"))?;
        self.published.iter().try_for_each(|published| write!(f, ", publish {published}"))
    }
}

/// Parses the value of `--network`.
///
/// # Errors
///
/// The value is none of the modes.
pub fn mode(extensions: &Extensions) -> Result<Option<Mode>> {
    let Some(text) = extensions.network.as_deref() else { return Ok(None) };
    let (kind, of) = match text.split_once(':') {
        Some((kind, of)) => (kind, Some(of)),
        None => (text, None),
    };
    Ok(Some(match (kind, of) {
        // pasta needs a new network namespace too.
        ("none" | pasta::NAME, None) => Mode::None,
        ("host", None) => Mode::Host,
        ("bridge", name) => {
            let name = name.unwrap_or(DEFAULT);
            definition::check_name(name)?;
            Mode::Bridge(name.to_owned())
        }
        ("container", Some(id)) => Mode::Container(ContainerId::parse(id)?),
        ("ns", Some(path)) if path.starts_with('/') => Mode::Path(path.into()),
        _ => {
            return Err(Error::config(format!("invalid network {text:?}"))
                .hint("use none, host, bridge, bridge:NAME, container:ID, ns:/PATH and pasta"));
        }
    }))
}

/// Returns the attachment, if the mode is `bridge`.
///
/// # Errors
///
/// A value is invalid, needs root, or needs the mode `bridge`.
pub fn attachment(extensions: &Extensions, rootless: bool) -> Result<Option<Attachment>> {
    let network = match mode(extensions)? {
        Some(Mode::Bridge(_)) if rootless => {
            return Err(Error::config(format!("{NETWORK}=bridge needs root"))
                .hint("without root, use --network pasta, host or none"));
        }
        Some(Mode::Bridge(name)) => name,
        other => return no_extras(extensions, other.is_some()).map(|()| None),
    };
    let published = list(&extensions.publish, "port to publish")?;
    conflicts(&published)?;
    let addresses: Vec<IpAddr> = list(&extensions.address, "address")?;
    if addresses.iter().filter(|a| a.is_ipv4()).count() > 1
        || addresses.iter().filter(|a| a.is_ipv6()).count() > 1
    {
        return Err(Error::config(format!(
            "{NETWORK_ADDRESS}: at most one IPv4 and one IPv6 address"
        )));
    }
    let rate = extensions.rate.as_deref().map(str::parse).transpose();
    let rate = rate.map_err(|why: String| Error::config(format!("invalid rate {why}")))?;
    let over_listeners = extensions.publish_over_listener;
    Ok(Some(Attachment { network, published, addresses, rate, over_listeners }))
}

fn no_extras(extensions: &Extensions, has_mode: bool) -> Result<()> {
    let Extensions { publish, address, rate, .. } = extensions;
    let extras = [(NETWORK_PUBLISH, publish), (NETWORK_ADDRESS, address), (NETWORK_RATE, rate)];
    let given = |(_, value): &(&str, &Option<String>)| value.iter().any(|v| !v.is_empty());
    match extras.into_iter().find(given).map(|(key, _)| key) {
        None => Ok(()),
        Some(key) if has_mode => Err(Error::config(format!(
            "{key} needs {NETWORK}=bridge, but it is {:?}",
            extensions.network.as_deref().unwrap_or_default()
        ))
        .hint("set it on the container that owns the network namespace")),
        Some(key) => {
            Err(Error::config(format!("{key} needs {NETWORK}")).hint("use --network bridge"))
        }
    }
}

/// Parses a list that is separated by commas. `what` names an item in errors.
pub(super) fn list<T: std::str::FromStr>(texts: &Option<String>, what: &str) -> Result<Vec<T>>
where
    T::Err: fmt::Display,
{
    let texts = texts.as_deref().unwrap_or_default();
    let words = texts.split(',').map(str::trim).filter(|word| !word.is_empty());
    let refuse = |word: &str, e: T::Err| {
        let e = e.to_string();
        let why = if e.contains(&format!("{word:?}")) { e } else { format!("{word:?}: {e}") };
        Error::config(format!("invalid {what} {why}"))
    };
    words.map(|word| word.parse().map_err(|e| refuse(word, e))).collect()
}

fn conflicts(published: &[Published]) -> Result<()> {
    for (n, one) in published.iter().enumerate() {
        if let Some(other) = published[..n].iter().find(|other| other.conflicts(*one)) {
            return Err(Error::config(format!(
                "cannot publish {one}: {other} publishes the same port"
            )));
        }
    }
    Ok(())
}

/// Sets the config's network namespace as `mode` requires. `path`: the namespace to join, if it is shared.
///
/// # Errors
///
/// The config joins a network namespace and `mode` requires a new one.
pub fn edit(spec: &mut Spec, mode: &Mode, path: Option<PathBuf>) -> Result<()> {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let is_network = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Network;
    let joined = namespaces.iter().find(|n| is_network(n)).and_then(|n| n.path().clone());
    if let (Mode::None | Mode::Bridge(_), Some(joined)) = (mode, joined) {
        return Err(Error::config(format!(
            "{NETWORK} asks for a new network namespace, and linux.namespaces joins {}",
            joined.display()
        ))
        .hint("remove the path from the config, or use ns:PATH"));
    }
    namespaces.retain(|n| !is_network(n));
    if *mode != Mode::Host && (path.is_some() || !matches!(mode, Mode::Container(_))) {
        let mut network = LinuxNamespace::default();
        network.set_typ(LinuxNamespaceType::Network).set_path(path);
        namespaces.push(network);
    }
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)]) -> String {
        attachment(&Extensions::of(pairs), false).unwrap_err().to_string()
    }

    #[test]
    fn network_modes_are_parsed() {
        let mode = |text| mode(&Extensions::of(&[(NETWORK, text)]));
        assert_eq!(mode("none").unwrap(), Some(Mode::None));
        assert_eq!(mode("bridge").unwrap(), Some(Mode::Bridge("aril0".to_owned())));
        assert_eq!(mode("bridge:n").unwrap(), Some(Mode::Bridge("n".to_owned())));
        assert_eq!(mode("ns:/run/n").unwrap(), Some(Mode::Path("/run/n".into())));
        assert!(matches!(mode("container:a").unwrap(), Some(Mode::Container(_))));
        for bad in
            ["", "x", "none:", "host:x", "ns:", "ns:n", "container", "container:/", "bridge:"]
        {
            assert!(mode(bad).is_err(), "{bad}");
        }
        assert_eq!(super::mode(&Extensions::default()).unwrap(), None);
    }

    #[test]
    fn attachments_are_parsed_and_checked() {
        let found = attachment(
            &Extensions::of(&[
                (NETWORK, "bridge:n"),
                (NETWORK_PUBLISH, "80:80, 127.0.0.1:53:53/udp"),
                (NETWORK_ADDRESS, "10.0.0.9,fd00::9"),
                (NETWORK_RATE, "8mbit"),
            ]),
            false,
        );
        let found = found.unwrap().unwrap();
        assert_eq!((found.published.len(), found.addresses.len()), (2, 2));
        assert_eq!(attachment(&Extensions::of(&[(NETWORK, "host")]), true).unwrap(), None);
        let bridge = (NETWORK, "bridge");
        let rootless = attachment(&Extensions::of(&[bridge]), true).unwrap_err().to_string();
        assert!(rootless.contains("needs root"));
        assert!(refused(&[(NETWORK, "host"), (NETWORK_PUBLISH, "80:80")]).contains("is \"host\""));
        assert!(refused(&[(NETWORK_PUBLISH, "80:80")]).contains("needs io.aril.network"));
        assert!(refused(&[bridge, (NETWORK_PUBLISH, "80")]).contains("port to publish \"80\""));
        assert!(refused(&[bridge, (NETWORK_PUBLISH, "80:1,80:2")]).contains("the same port"));
        assert!(refused(&[bridge, (NETWORK_ADDRESS, "10.0.0.1,10.0.0.2")]).contains("at most one"));
        assert!(refused(&[bridge, (NETWORK_ADDRESS, "x")]).contains("invalid address \"x\""));
        assert!(refused(&[bridge, (NETWORK_RATE, "x")]).contains("invalid rate \"x\": expected"));
    }

    #[test]
    fn the_config_gets_the_namespace_of_the_mode() {
        let spec = |json: &str| {
            let mut spec = Spec::default();
            spec.set_linux(Some(serde_json::from_str(json).unwrap()));
            spec
        };
        let network = |spec: &Spec| {
            let linux = spec.linux().clone().unwrap();
            let all = linux.namespaces().clone().unwrap();
            all.into_iter().find(|n| n.typ() == LinuxNamespaceType::Network)
        };
        let mut plain = spec(r#"{"namespaces":[{"type":"pid"},{"type":"network"}]}"#);
        edit(&mut plain, &Mode::Host, None).unwrap();
        assert_eq!(network(&plain), None);
        edit(&mut plain, &Mode::None, None).unwrap();
        assert_eq!(*network(&plain).unwrap().path(), None);
        let path: PathBuf = "/n".into();
        edit(&mut plain, &Mode::Path(path.clone()), Some(path.clone())).unwrap();
        assert_eq!(*network(&plain).unwrap().path(), Some(path));
        let bridge = Mode::Bridge("n".to_owned());
        assert!(edit(&mut plain, &bridge, None).unwrap_err().to_string().contains("joins /n"));
    }
}
