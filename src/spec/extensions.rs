//! Settings of a container that the specification lacks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::annotation;

/// Settings in the format of the options of `run` and `create`. [`annotation`] describes each.
///
/// Only [`super::grant`] creates a value that other code acts on: an [`super::OperatorGrant`].
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
    /// True to keep the caller's supplementary groups.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_groups: bool,
    /// True to reject a seccomp profile with an unknown system call. Not used after create.
    #[serde(skip)]
    pub known_syscalls_only: bool,
    /// True to publish ports on which a process of the host listens. No annotation sets this. Not used after create.
    #[serde(skip)]
    pub publish_over_listener: bool,
    /// Annotations that set properties of the systemd unit. Not used after create.
    #[serde(skip)]
    pub systemd: BTreeMap<String, String>,
}

impl Extensions {
    /// Returns the field of an annotation with Aril's prefix.
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

    /// Sets the value of an annotation, unless an option has set it already.
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
    /// Returns the settings of annotations as if they were allowed.
    pub fn of(annotations: &[(&str, &str)]) -> Self {
        let mut extensions = Self::default();
        annotations.iter().for_each(|(key, value)| extensions.annotate(key, value));
        extensions
    }
}
