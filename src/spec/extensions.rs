//! What a container is given beyond the specification, as typed fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::annotation;

/// The values as the options of `run` and `create` have them; [`annotation`] describes each.
///
/// Only [`super::grant`] makes one that anything acts on: an [`super::OperatorGrant`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extensions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_search: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<String>,
    /// The caller's supplementary groups stay.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_groups: bool,
    /// A seccomp profile with an unknown system call is refused. Of no use after create.
    #[serde(skip)]
    pub known_syscalls_only: bool,
    /// Ports are published though a process of the host listens on them. No annotation asks for it, and it is of no
    /// use after create.
    #[serde(skip)]
    pub publish_over_listener: bool,
    /// Properties of the systemd unit by annotation. Of no use after create.
    #[serde(skip)]
    pub systemd: BTreeMap<String, String>,
}

impl Extensions {
    /// The field of one of Aril's own annotations.
    fn field(&mut self, key: &str) -> Option<&mut Option<String>> {
        Some(match key {
            annotation::LAYERS => &mut self.layers,
            annotation::UPPER => &mut self.upper,
            annotation::SHOW => &mut self.show,
            annotation::USERNS => &mut self.userns,
            annotation::NETWORK => &mut self.network,
            annotation::NETWORK_PUBLISH => &mut self.publish,
            annotation::NETWORK_ADDRESS => &mut self.address,
            annotation::NETWORK_DNS => &mut self.dns,
            annotation::NETWORK_DNS_SEARCH => &mut self.dns_search,
            annotation::NETWORK_HOSTS => &mut self.hosts,
            annotation::NETWORK_RATE => &mut self.rate,
            annotation::LANDLOCK => &mut self.landlock,
            _ => return None,
        })
    }

    /// Does what an annotation asks for, unless an option has decided the same already.
    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        if key == annotation::KEEP_GROUPS {
            self.keep_groups |= value != "0";
        } else if key == annotation::UNKNOWN_SYSCALLS {
            self.known_syscalls_only |= value != "0";
        } else if key.starts_with(annotation::SYSTEMD) {
            self.systemd.insert(key.to_owned(), value.to_owned());
        } else if let Some(field) = self.field(key) {
            field.get_or_insert_with(|| value.to_owned());
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Extensions {
    /// What these annotations ask for, were they allowed.
    pub fn of(annotations: &[(&str, &str)]) -> Self {
        let mut extensions = Self::default();
        annotations.iter().for_each(|(key, value)| extensions.annotate(key, value));
        extensions
    }
}
