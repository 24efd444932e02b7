//! Turns the environment and the configuration on stdin into a [`Call`]. Reads nothing of the host.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::go;
use super::output::{DECODE, ENVIRONMENT, Failure, INVALID, UNSUPPORTED, VERSION, VERSIONS};
use crate::network::definition::subnet::Subnet;
use crate::network::definition::{self, NetworkOptions};
use crate::network::link::rate::Rate;
use crate::network::plan::Attachment;
use crate::network::ports::Published;

const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// Commands of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// Variables that the plugin reads.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub command: String,
    pub container: String,
    pub namespace: String,
    pub interface: String,
    pub args: String,
    pub path: String,
}

fn wrong(name: &str, why: &str) -> Failure {
    Failure::new(ENVIRONMENT, format!("{name}: {why}"))
}

impl Environment {
    /// Reads the variables of this process.
    #[expect(clippy::disallowed_methods, reason = "the parameters of a CNI plugin")]
    pub fn of_this_process() -> Self {
        let get = |name| std::env::var(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container: get("CNI_CONTAINERID"),
            namespace: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
            path: get("CNI_PATH"),
        }
    }

    /// Parses `CNI_COMMAND`, and checks the variables that the command needs.
    ///
    /// # Errors
    ///
    /// A variable is missing or invalid.
    pub fn command(&self) -> Result<Command, Failure> {
        Ok(match self.command.as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            "" => {
                return Err(wrong(
                    "CNI_COMMAND",
                    "is not set: aril-cni is a CNI plugin that engines call",
                ));
            }
            other => return Err(wrong("CNI_COMMAND", &format!("unknown command {other:?}"))),
        })
    }

    /// Checks the variables that an attachment needs.
    fn check(&self, command: Command) -> Result<(), Failure> {
        if matches!(command, Command::Gc | Command::Status) {
            return Ok(());
        }
        if !is_container(&self.container) {
            return Err(wrong(
                "CNI_CONTAINERID",
                &format!("not a container ID: {:?}", self.container),
            ));
        }
        if !is_interface(&self.interface) {
            return Err(wrong(
                "CNI_IFNAME",
                &format!("not an interface name: {:?}", self.interface),
            ));
        }
        if command != Command::Del && !self.namespace.starts_with('/') {
            let text = format!("not a path of a network namespace: {:?}", self.namespace);
            return Err(wrong("CNI_NETNS", &text));
        }
        Ok(())
    }

    /// Addresses that `IP` in `CNI_ARGS` requests.
    fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let pairs = self.args.split(';').filter_map(|pair| pair.split_once('='));
        let wanted = |(key, text): &(&str, &str)| *key == "IP" && !text.is_empty();
        pairs.filter(wanted).map(|(_, text)| address(text, ENVIRONMENT)).collect()
    }
}

/// Applies the rule of the CNI specification; other characters would form a path.
fn is_container(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    id.len() <= 200
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && id.bytes().all(allowed)
}

fn is_interface(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < libc::IFNAMSIZ
        && name.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':'))
}

/// Parses an address with or without a prefix length.
fn address(text: &str, code: u32) -> Result<IpAddr, Failure> {
    let bare = text.split('/').next().unwrap_or_default();
    bare.parse().map_err(|_| Failure::new(code, format!("{text:?} is not an IP address")))
}

/// Fields of the configuration. Names are lower-case, as [`go::parse`] returns them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(rename = "cniversion")]
    cni_version: Option<String>,
    name: String,
    bridge: Option<String>,
    subnet: Option<String>,
    mtu: Option<u32>,
    internal: bool,
    open: bool,
    ipam: Ipam,
    dns: Option<Value>,
    #[serde(rename = "runtimeconfig")]
    runtime_config: RuntimeConfig,
    #[serde(rename = "prevresult")]
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Vec<Valid>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(flatten)]
    range: Range,
    ranges: Vec<Vec<Range>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Range {
    subnet: Option<String>,
    gateway: Option<String>,
    range: Option<String>,
    #[serde(rename = "rangestart")]
    range_start: Option<Value>,
    #[serde(rename = "rangeend")]
    range_end: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    #[serde(rename = "portmappings")]
    port_mappings: Vec<PortMapping>,
    bandwidth: Option<Bandwidth>,
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PortMapping {
    #[serde(rename = "hostport")]
    host_port: i64,
    #[serde(rename = "containerport")]
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostip")]
    host_ip: String,
}

/// Rates in bits per second, from the container's point of view.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bandwidth {
    #[serde(rename = "ingressrate")]
    ingress_rate: u64,
    #[serde(rename = "egressrate")]
    egress_rate: u64,
}

/// Attachment that is still in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Valid {
    #[serde(rename = "containerid")]
    pub container: String,
    pub ifname: String,
}

/// Value of `ipam.type` that selects this plugin.
const OWN: &str = "aril-cni";

/// True if `ipam.type` names another plugin.
fn delegated(kind: &str) -> bool {
    kind != OWN && is_container(kind)
}

/// One call of the plugin.
#[derive(Debug)]
pub struct Call {
    pub environment: Environment,
    pub version: String,
    pub wanted: NetworkOptions,
    /// Without subnets the network is used as it exists.
    pub attachment: Attachment,
    /// Plugin that assigns addresses, if it is another one.
    pub ipam: Option<String>,
    pub dns: Option<Value>,
    pub previous: Option<Value>,
    pub valid: Vec<Valid>,
    /// Configuration as it was read, for the other plugin.
    pub input: Vec<u8>,
}

/// Version that the answer must have, even if the configuration is invalid.
pub fn version_of(input: &[u8]) -> String {
    let found = go::parse(input).ok();
    let found = found.and_then(|v| v.get("cniversion")?.as_str().map(str::to_owned));
    found.filter(|v| VERSIONS.contains(&v.as_str())).unwrap_or_else(|| NEWEST.to_owned())
}

impl Call {
    /// Reads the call of a DEL: only what identifies the attachment, so that no other field can be invalid. The
    /// attachment is removed even if the configuration has become invalid since the ADD; an engine that sends it
    /// again could otherwise never remove its container.
    ///
    /// # Errors
    ///
    /// The configuration is no JSON object.
    pub fn of_del(environment: &Environment, input: &[u8]) -> Result<Self, Failure> {
        environment.check(Command::Del)?;
        let document = go::parse(input).unwrap_or_default();
        let text =
            |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let name =
            text(&document["bridge"]).or_else(|| text(&document["name"])).unwrap_or_default();
        Ok(Self {
            environment: environment.clone(),
            version: version_of(input),
            wanted: NetworkOptions { name, ..NetworkOptions::default() },
            attachment: Attachment::default(),
            ipam: text(&document["ipam"]["type"]).filter(|kind| delegated(kind)),
            dns: None,
            previous: None,
            valid: Vec::new(),
            input: input.to_vec(),
        })
    }

    /// Parses a call of ADD, CHECK, GC or STATUS.
    ///
    /// # Errors
    ///
    /// The configuration has an invalid or missing field.
    pub fn parse(
        command: Command,
        environment: &Environment,
        input: &[u8],
    ) -> Result<Self, Failure> {
        environment.check(command)?;
        let document = Document::decode(input)?;
        let version = document.cni_version.clone().unwrap_or_default();
        if !VERSIONS.contains(&version.as_str()) {
            let text = format!(
                "cniVersion {version:?} is not supported: use one of {}",
                VERSIONS.join(", ")
            );
            return Err(Failure::new(VERSION, text));
        }
        let invalid = |text: &str| Err(Failure::new(INVALID, text));
        if !is_container(&document.name) {
            return invalid(&format!("invalid network name {:?}", document.name));
        }
        if command == Command::Add && document.prev_result.is_some() {
            return invalid(
                "aril-cni creates the link, so it must be the first plugin of the list",
            );
        }
        if command == Command::Check && document.prev_result.is_none() {
            return invalid("CHECK needs prevResult");
        }
        let ipam = document.ipam.kind.clone().filter(|kind| !kind.is_empty() && kind != OWN);
        if ipam.as_ref().is_some_and(|kind| !is_container(kind)) {
            return invalid("ipam.type is not a plugin name");
        }
        let wanted = document.wanted(ipam.is_none())?;
        let runtime = &document.runtime_config;
        let mut addresses = environment.addresses()?;
        for text in runtime.ips.iter().filter(|text| !text.is_empty()) {
            addresses.push(address(text, INVALID)?);
        }
        let attachment = Attachment {
            network: wanted.name.clone(),
            published: runtime.published()?,
            addresses,
            rate: runtime.bandwidth.as_ref().and_then(Bandwidth::rate),
            // Engines, such as Podman, hold the ports of their containers with listening sockets.
            over_listeners: true,
        };
        Ok(Self {
            environment: environment.clone(),
            version,
            wanted,
            attachment,
            ipam,
            dns: document.dns,
            previous: document.prev_result,
            valid: document.valid,
            input: input.to_vec(),
        })
    }
}

/// Returns `None` for the zero value, which Go programs write for a field that is not set.
fn given<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

impl Document {
    fn decode(input: &[u8]) -> Result<Self, Failure> {
        let wrong = |e| Failure::new(DECODE, format!("decode the configuration: {e}"));
        let mut document: Self =
            serde_json::from_value(go::parse(input).map_err(wrong)?).map_err(wrong)?;
        document.bridge = given(document.bridge);
        document.mtu = given(document.mtu);
        document.subnet = given(document.subnet);
        let own = &mut document.ipam;
        for range in [&mut own.range].into_iter().chain(own.ranges.iter_mut().flatten()) {
            range.subnet = given(range.subnet.take());
            range.gateway = given(range.gateway.take());
            range.range = given(range.range.take());
            for edge in [&mut range.range_start, &mut range.range_end] {
                *edge = edge.take().filter(|edge| edge != "");
            }
        }
        // An empty set of ranges counts as absent.
        own.ranges.retain(|set| !set.is_empty());
        Ok(document)
    }

    fn wanted(&self, own_addresses: bool) -> Result<NetworkOptions, Failure> {
        let name = self.bridge.clone().unwrap_or_else(|| self.name.clone());
        definition::check_name(&name).map_err(|e| {
            let mut failure = Failure::from(e);
            failure.details = "give the bridge a name of at most 15 letters: \"bridge\"".to_owned();
            failure
        })?;
        let top = Range { subnet: self.subnet.clone(), ..Range::default() };
        let first = |set: &'_ Vec<Range>| set.len() == 1;
        if own_addresses && !self.ipam.ranges.iter().all(first) {
            return Err(Failure::new(
                UNSUPPORTED,
                "ipam.ranges: each set must have exactly one range",
            ));
        }
        let mut wanted = NetworkOptions { name, mtu: self.mtu, ..NetworkOptions::default() };
        (wanted.internal, wanted.open) = (self.internal, self.open);
        let all = [&top, &self.ipam.range].into_iter().chain(self.ipam.ranges.iter().flatten());
        for range in all.filter(|_| own_addresses) {
            if range.range_start.is_some() || range.range_end.is_some() {
                let text = "ipam.rangeStart and rangeEnd are not supported: use \"range\", such as 10.1.2.0/26";
                return Err(Failure::new(UNSUPPORTED, text));
            }
            wanted.subnets.extend(range.subnet.clone());
            wanted.gateways.extend(range.gateway.clone());
            wanted.ranges.extend(range.range.clone());
        }
        if !wanted.subnets.is_empty() {
            wanted.network()?;
        }
        Ok(wanted)
    }
}

impl RuntimeConfig {
    fn published(&self) -> Result<Vec<Published>, Failure> {
        // A mapping without a host port publishes nothing.
        let mappings = self.port_mappings.iter().filter(|mapping| mapping.host_port != 0);
        mappings.map(PortMapping::published).collect()
    }
}

impl PortMapping {
    fn published(&self) -> Result<Published, Failure> {
        let Self { host_port, container_port, protocol, host_ip } = self;
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        let address = match host_ip.as_str() {
            "" => String::new(),
            six if six.contains(':') => format!("[{six}]:"),
            four => format!("{four}:"),
        };
        let text = format!("{address}{host_port}:{container_port}/{}", protocol.to_lowercase());
        text.parse().map_err(|why: String| Failure::new(INVALID, format!("portMappings: {why}")))
    }
}

impl Bandwidth {
    fn rate(&self) -> Option<Rate> {
        let bytes = |bits: u64| (bits > 0).then_some((bits / 8).max(1));
        let rate = Rate { inward: bytes(self.ingress_rate), outward: bytes(self.egress_rate) };
        (rate.inward.is_some() || rate.outward.is_some()).then_some(rate)
    }
}

/// Network of the addresses that another plugin assigned, if the configuration names no subnet.
pub fn network_of(mut wanted: NetworkOptions, ips: &[(Subnet, Option<IpAddr>)]) -> NetworkOptions {
    for (subnet, gateway) in ips {
        wanted.subnets.push(subnet.with(subnet.first()).to_string());
        wanted.gateways.extend(gateway.map(|g| g.to_string()));
    }
    wanted
}

#[cfg(test)]
mod tests;
