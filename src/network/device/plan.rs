//! Decides which devices of `linux.netDevices` to move. Pure.

use std::collections::HashMap;

use oci_spec::runtime::LinuxNetDevice;

use super::Device;
use crate::error::{Error, Result};

/// Part of the config that decides about devices.
#[derive(Debug)]
pub struct DeviceRequest<'a> {
    pub devices: Option<&'a HashMap<String, LinuxNetDevice>>,
    /// The container's network namespace differs from the runtime's.
    pub private_network: bool,
    pub rootless: bool,
}

/// `IFNAMSIZ` without the NUL.
const LONGEST_NAME: usize = 15;

/// Plans the moves, in the order of the devices' names, because the config's map has no order.
///
/// # Errors
///
/// A name is invalid or used twice, or the container has no network namespace of its own.
pub fn plan(input: &DeviceRequest<'_>) -> Result<Vec<Device>> {
    let Some(given) = input.devices.filter(|devices| !devices.is_empty()) else {
        return Ok(Vec::new());
    };
    if !input.private_network {
        return Err(Error::config(
            "netDevices: unable to move network devices without a private NET namespace",
        ));
    }
    if input.rootless {
        return Err(Error::config(
            "netDevices: network devices are not supported for rootless containers",
        )
        .hint("only root can move a device of the host"));
    }
    let mut devices = Vec::with_capacity(given.len());
    for (host, device) in given {
        let name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        if !is_name(host) || host.contains('%') {
            return Err(Error::config(format!("netDevices: invalid network device name {host:?}")));
        }
        if !is_name(name) || !is_template(name) {
            return Err(Error::config(format!(
                "netDevices: {host}: invalid network device name {name:?}"
            )));
        }
        devices.push(Device { host: host.clone(), name: name.to_owned() });
    }
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    let mut names: Vec<_> = devices.iter().map(|device| &device.name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1] && !pair[0].contains('%')) {
        Some(pair) => Err(Error::config(format!(
            "netDevices: two devices would be named {:?} in the container",
            pair[0]
        ))),
        None => Ok(devices),
    }
}

/// Applies the rule of the kernel's `dev_valid_name`.
fn is_name(name: &str) -> bool {
    let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !matches!(name, "." | "..")
        && !name.contains(refused)
}

/// True if every percent sign is followed by one `d`.
fn is_template(name: &str) -> bool {
    match name.split_once('%') {
        None => true,
        Some((_, rest)) => rest.starts_with('d') && !rest.contains('%'),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(devices: Value) -> Result<Vec<Device>> {
        let devices = serde_json::from_value(devices).unwrap();
        plan(&DeviceRequest { devices: Some(&devices), private_network: true, rootless: false })
    }

    #[test]
    fn moves_are_planned_in_order_of_names() {
        let devices = planned(json!({"eth1": {}, "eth0": {"name": "net%d"}, "x": {"name": ""}}));
        let text: Vec<_> = devices.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "move network device eth0 into the container as net%d",
                "move network device eth1 into the container",
                "move network device x into the container"
            ]
        );
    }

    #[test]
    fn invalid_devices_are_refused() {
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\nb", "sixteen-letters!", "a%", "%s%d"] {
            let named = planned(json!({"eth0": {"name": bad}}));
            assert_eq!(named.is_ok(), bad.is_empty(), "{bad:?}");
            let text = planned(json!({bad: {}})).unwrap_err().to_string();
            assert_eq!(text, format!("netDevices: invalid network device name {bad:?}"));
        }
        let twice = planned(json!({"a": {"name": "c"}, "b": {"name": "c"}}));
        assert!(twice.unwrap_err().to_string().contains("\"c\""));
        let devices = HashMap::from([("a".to_owned(), LinuxNetDevice::default())]);
        let devices = Some(&devices);
        for (private_network, rootless, word) in
            [(false, false, "private NET namespace"), (true, true, "rootless")]
        {
            let refused = plan(&DeviceRequest { devices, private_network, rootless }).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
        let none = Some(&HashMap::new());
        let input = DeviceRequest { devices: none, private_network: false, rootless: true };
        assert_eq!(plan(&input).unwrap(), []);
    }
}
