//! Results and errors that the plugin prints.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::network::address::Lease;
use crate::network::definition::{Network, mac};

/// Supported versions of the CNI specification, the oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Error codes of the CNI specification.
pub const VERSION: u32 = 1;
pub const UNSUPPORTED: u32 = 2;
pub const ENVIRONMENT: u32 = 4;
pub const IO: u32 = 5;
pub const DECODE: u32 = 6;
pub const INVALID: u32 = 7;
/// Error code of the Go library for plugins: invalid network namespace.
pub const NAMESPACE: u32 = 8;
/// Error code: the plugin cannot serve an ADD.
pub const UNAVAILABLE: u32 = 50;
/// Error code of Aril: the kernel or another process refused a request.
const REFUSED: u32 = 100;
/// Error code of Aril: the attachment exists, or its address or port is in use.
pub const TAKEN: u32 = 101;
/// Error code of Aril: CHECK found something missing.
pub const MISSING: u32 = 102;

/// Error of the plugin, as the specification defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u32,
    pub message: String,
    pub details: String,
}

impl Failure {
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// JSON text of the error.
    pub fn text(&self, version: &str) -> String {
        #[derive(Serialize)]
        struct Text<'a> {
            #[serde(rename = "cniVersion")]
            version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let text = Text { version, code: self.code, msg: &self.message, details: &self.details };
        line(&json!(text))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            Kind::Config | Kind::Usage => INVALID,
            Kind::Exists => TAKEN,
            _ => REFUSED,
        };
        let details = error.advice().unwrap_or_default().to_owned();
        Self { code, message: error.to_string(), details }
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Answer to VERSION.
pub fn versions(version: &str) -> String {
    line(&json!({ "cniVersion": version, "supportedVersions": VERSIONS }))
}

/// Result of an ADD.
#[derive(Debug)]
pub struct Added<'a> {
    pub version: &'a str,
    pub network: &'a Network,
    pub lease: &'a Lease,
    pub interface: &'a str,
    pub namespace: &'a str,
    pub dns: Option<&'a Value>,
}

impl Added<'_> {
    /// JSON text of the result.
    pub fn text(&self) -> String {
        let Self { network, lease, .. } = self;
        let address = lease.addresses[0];
        let mut interfaces = [
            json!({ "name": network.name, "mac": hardware(network.mac()) }),
            json!({ "name": lease.link }),
            json!({ "name": self.interface, "mac": hardware(mac(address)),
                    "sandbox": self.namespace }),
        ];
        if self.version == "1.1.0" {
            interfaces.iter_mut().for_each(|i| i["mtu"] = json!(network.mtu));
        }
        let pools = || network.pools().zip(&lease.addresses);
        let ips = pools().map(|(pool, address)| {
            let mut ip = json!({ "address": pool.subnet.with(*address).to_string(),
                                 "gateway": pool.gateway, "interface": 2 });
            if self.version.starts_with("0.") {
                ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
            }
            ip
        });
        let routes = pools()
            .filter(|_| !network.internal)
            .map(|(pool, _)| json!({ "dst": everywhere(pool.gateway), "gw": pool.gateway }));
        line(&json!({
            "cniVersion": self.version,
            "interfaces": interfaces,
            "ips": ips.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "dns": self.dns.cloned().unwrap_or_else(|| json!({})),
        }))
    }
}

fn everywhere(gateway: IpAddr) -> &'static str {
    if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

fn hardware(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
