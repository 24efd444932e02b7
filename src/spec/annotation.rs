//! Annotations of a config.json that Aril acts on, and the part of the host that each affects.
//!
//! A config.json contains text of the engine and of authors of images and pods, so an annotation takes effect only if
//! [`super::grant`] allows it. All other annotations are passed on to `state` and to hooks, and have no effect.

/// Prefix of Aril's own annotations.
pub const ARIL: &str = "io.aril.";

/// Prefix of the annotations that set properties of the container's systemd unit.
pub const SYSTEMD: &str = "org.systemd.property.";

/// Annotation of crun: processes of the container keep the supplementary groups of the runtime's caller, unless the
/// value is `0`. Podman sets it for `--group-add keep-groups`.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Annotation of crun: a seccomp profile with a system call that Aril does not know is an error, unless the value is
/// `0`. Without it, Aril ignores such a name with a warning.
pub const UNKNOWN_SYSCALLS: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Directories of the layers of the rootfs, lowest first: separated by colons, or a JSON list of strings.
///
/// At most 500. Relative paths are relative to the bundle. The list is complete: `root.path` is a layer only if the
/// list contains it, and otherwise only the mount point.
pub const LAYERS: &str = "io.aril.rootfs.layers";

/// Upper layer that receives what the container writes to its root.
///
/// - `ephemeral` or `ephemeral:SIZE`: a directory that is removed with the container; the default with layers.
/// - `tmpfs` or `tmpfs:SIZE`.
/// - a directory that is kept, with a slash in its name; `DIR/:SIZE` with a limit.
/// - `{"upper":DIR,"work":DIR}`: two existing directories of one file system, which the caller uses for no other
///   container.
///
/// On a disk, a SIZE needs project quotas of the file system. Without layers, `root.path` is the only layer.
pub const UPPER: &str = "io.aril.rootfs.upper";

/// `true` to mount the rootfs also on the host, at `rootfs` in the bundle, as long as the container exists.
///
/// For tools that look for the rootfs there. Otherwise no mount of the container is in the host's mount table.
pub const SHOW: &str = "io.aril.rootfs.show";

/// `auto` or `auto:SIZE`: a user namespace with SIZE IDs (65536), which no other container of this state root has.
///
/// The IDs are from /etc/subuid and /etc/subgid. If root runs the container, its rootfs is an id-mapped mount.
pub const USERNS: &str = "io.aril.userns";

/// Published ports of the host, separated by commas: `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]`. They need
/// `bridge`.
pub const NETWORK_PUBLISH: &str = "io.aril.network.publish";

/// Address of the container on the network, instead of a free one; separated by a comma, one of each family.
pub const NETWORK_ADDRESS: &str = "io.aril.network.address";

/// Addresses of DNS servers of the container, instead of the host's; separated by commas.
pub const NETWORK_DNS: &str = "io.aril.network.dns";

/// Search domains of the container, instead of the host's; separated by commas.
pub const NETWORK_DNS_SEARCH: &str = "io.aril.network.dns-search";

/// Additional names for /etc/hosts: `NAME:ADDRESS`, separated by commas.
pub const NETWORK_HOSTS: &str = "io.aril.network.hosts";

/// Bandwidth of the link in bits per second: `10mbit`, or `in=10mbit,out=1mbit`.
pub const NETWORK_RATE: &str = "io.aril.network.rate";

/// Network: `none`, `host`, `bridge`, `bridge:NAME`, `container:ID`, `ns:/PATH` or `pasta`.
///
/// `pasta` is for a rootless container: a new network namespace, connected by the program of that name (package passt).
/// Without this annotation, the network namespace is that of the config, and empty.
pub const NETWORK: &str = "io.aril.network";

/// Landlock rules for the container's programs: a JSON document, described in `docs/landlock.md`.
///
/// The rules restrict access to files, to TCP ports and to processes of others. Sets no_new_privs.
pub const LANDLOCK: &str = "io.aril.landlock";

/// Enforced part of [`LANDLOCK`], which Aril adds to the annotations in `state` and in the input of hooks.
///
/// Aril never reads it, and removes it from the annotations of config.json, where it would be a false report.
pub const LANDLOCK_ENFORCED: &str = "io.aril.landlock.enforced";

/// Class of an annotation: the part of the host that it affects, and the permission that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Affects only the container. Takes effect unless the operator denies it.
    Harmless,
    /// Uses resources that the host has for containers. Takes effect if the operator allows the key or a prefix of it.
    Container,
    /// Names paths, namespaces, ports or properties of the host. Takes effect only if the operator allows its full key.
    Host,
    /// Has Aril's prefix, but no meaning.
    Unknown,
}

/// Properties that affect only the container's own systemd unit: those that CRI-O and the tests of runc set. Others may
/// affect the host, such as `SuccessAction=poweroff` (CVE-2024-3154).
const OWN_PROPERTIES: [&str; 7] = [
    "After",
    "CollectMode",
    "DefaultDependencies",
    "RuntimeMaxSec",
    "RuntimeMaxUSec",
    "TimeoutStopSec",
    "TimeoutStopUSec",
];

/// Returns the class of an annotation. `None` if Aril passes it on without an effect.
pub fn class(key: &str, value: &str) -> Option<Class> {
    if let Some(property) = key.strip_prefix(SYSTEMD) {
        let own = OWN_PROPERTIES.contains(&property);
        return Some(if own { Class::Harmless } else { Class::Host });
    }
    if !key.starts_with(ARIL) {
        return [KEEP_GROUPS, UNKNOWN_SYSCALLS].contains(&key).then_some(Class::Harmless);
    }
    let host = match key {
        LAYERS | SHOW | USERNS => true,
        UPPER => value.contains('/') || value.starts_with('{'),
        NETWORK => !matches!(value, "none" | "bridge"),
        NETWORK_PUBLISH => !value.split(',').all(is_high_port),
        NETWORK_ADDRESS | NETWORK_DNS | NETWORK_DNS_SEARCH | NETWORK_HOSTS | NETWORK_RATE
        | LANDLOCK => false,
        _ => return Some(Class::Unknown),
    };
    Some(if host { Class::Host } else { Class::Container })
}

/// Returns true for `PORT[-PORT]:...` with ports from 1024 on, on all addresses of the host.
fn is_high_port(published: &str) -> bool {
    const FIRST_UNPRIVILEGED: u16 = 1024;
    let parts: Vec<_> = published.trim().split(':').collect();
    let [host, _container] = parts[..] else { return false };
    let number = |text: &str| text.parse::<u16>().is_ok_and(|port| port >= FIRST_UNPRIVILEGED);
    host.split('-').all(number)
}

/// Returns true if an annotation with this key, or one with this prefix, can take effect.
pub fn is_known(pattern: &str, prefix: bool) -> bool {
    const KEYS: [&str; 14] = [
        LAYERS,
        UPPER,
        SHOW,
        USERNS,
        NETWORK,
        NETWORK_PUBLISH,
        NETWORK_ADDRESS,
        NETWORK_DNS,
        NETWORK_DNS_SEARCH,
        NETWORK_HOSTS,
        NETWORK_RATE,
        LANDLOCK,
        KEEP_GROUPS,
        UNKNOWN_SYSCALLS,
    ];
    if prefix {
        return KEYS.iter().any(|key| key.starts_with(pattern))
            || SYSTEMD.starts_with(pattern)
            || pattern.starts_with(SYSTEMD);
    }
    KEYS.contains(&pattern) || pattern.strip_prefix(SYSTEMD).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_the_host_is_a_class_of_its_own() {
        let values = [
            (LAYERS, &[("/", Class::Host), ("", Class::Host)][..]),
            (SHOW, &[("true", Class::Host), ("false", Class::Host)]),
            (USERNS, &[("auto", Class::Host)]),
            (
                UPPER,
                &[
                    ("ephemeral", Class::Container),
                    ("tmpfs:1m", Class::Container),
                    ("./kept", Class::Host),
                    ("kept/:1g", Class::Host),
                    (r#"{"upper":"a","work":"b"}"#, Class::Host),
                ],
            ),
            (
                NETWORK,
                &[
                    ("none", Class::Container),
                    ("bridge", Class::Container),
                    ("bridge:other", Class::Host),
                    ("host", Class::Host),
                    ("container:a", Class::Host),
                    ("ns:/run/netns/a", Class::Host),
                    ("pasta", Class::Host),
                    ("", Class::Host),
                    ("Bridge", Class::Host),
                ],
            ),
            (
                NETWORK_PUBLISH,
                &[
                    ("8080:80", Class::Container),
                    ("8080-8081:80-81/udp, 9000:1", Class::Container),
                    ("1023:80", Class::Host),
                    ("8080:80,22:22", Class::Host),
                    ("1000-2000:1000-2000", Class::Host),
                    ("127.0.0.1:8080:80", Class::Host),
                    ("0.0.0.0:8080:80", Class::Host),
                    ("[::1]:8080:80", Class::Host),
                    ("8080", Class::Host),
                    ("", Class::Host),
                    ("+8080:80,x", Class::Host),
                ],
            ),
            (LANDLOCK, &[("{}", Class::Container)]),
            (NETWORK_DNS, &[("192.0.2.1", Class::Container)]),
        ];
        for (key, cases) in values {
            for (value, wanted) in cases {
                assert_eq!(class(key, value), Some(*wanted), "{key}={value}");
            }
        }
    }

    #[test]
    fn other_annotations() {
        assert_eq!(class("org.systemd.property.SuccessAction", "'x'"), Some(Class::Host));
        assert_eq!(class("org.systemd.property.TimeoutStopSec", "1"), Some(Class::Harmless));
        assert_eq!(class("org.systemd.property.timeoutstopsec", "1"), Some(Class::Host));
        assert_eq!(class(KEEP_GROUPS, "1"), Some(Class::Harmless));
        assert_eq!(class("run.oci.keep_original_groups2", "1"), None);
        assert_eq!(class(LANDLOCK_ENFORCED, "all"), Some(Class::Unknown));
        for unknown in ["io.aril.", "io.aril.network.", "io.aril.network.Publish", "io.aril.x"] {
            assert_eq!(class(unknown, "1"), Some(Class::Unknown), "{unknown}");
        }
        for foreign in ["", "IO.ARIL.NETWORK", " io.aril.network", "io.aril", "org.criu.config"] {
            assert_eq!(class(foreign, "host"), None, "{foreign}");
        }
    }

    #[test]
    fn a_pattern_is_known_if_something_it_matches_acts() {
        for (pattern, prefix, known) in [
            ("io.aril.", true, true),
            ("io.aril.network", true, true),
            ("io.aril.network", false, true),
            ("io.aril.netwrok", false, false),
            ("io.aril.netwrok", true, false),
            ("org.systemd.property.", true, true),
            ("org.systemd.property.X", false, true),
            ("org.systemd.property.", false, false),
            ("com.example.", true, false),
            ("", true, true),
        ] {
            assert_eq!(is_known(pattern, prefix), known, "{pattern} {prefix}");
        }
    }
}
