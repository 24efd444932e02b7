//! The annotations of a config.json that change what Aril does, and what each can reach.
//!
//! A config.json mixes the engine's word with that of image and pod authors, so an annotation acts only
//! where [`super::grant`] lets it. Every annotation that is not named here is passed through to `state`
//! and to hooks, and changes nothing.

/// Prefix of Aril's own annotations.
pub const ARIL: &str = "io.aril.";

/// Prefix of the annotations that set properties of the container's systemd unit.
pub const SYSTEMD: &str = "org.systemd.property.";

/// crun's: the container's processes keep the supplementary groups of the runtime's caller, unless the
/// value is `0`. Podman sets it for `--group-add keep-groups`.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// crun's: a seccomp profile with a system call that Aril does not know is refused, unless the value is
/// `0`. Without it, such a name is ignored with a warning.
pub const UNKNOWN_SYSCALLS: &str = "run.oci.seccomp_fail_unknown_syscall";

/// The directories that the rootfs is made of, lowest first: separated by colons, or a JSON list of
/// strings. Relative ones are relative to the bundle; at most 500. The list is complete: `root.path`
/// is a layer only if it is in it, and else just an empty place.
pub const LAYERS: &str = "io.aril.rootfs.layers";

/// What takes the container's writes to its root: `ephemeral` (removed with the container; the default
/// where there are layers), `ephemeral:SIZE`, `tmpfs`, `tmpfs:SIZE`, or a directory that is kept,
/// with a slash in its name, `DIR/:SIZE` with a limit; `{"upper":DIR,"work":DIR}`: two existing
/// directories of one file system, which the caller gives to no other container. On a disk a SIZE needs
/// project quotas of the file system. Without layers, `root.path` is the one layer.
pub const UPPER: &str = "io.aril.rootfs.upper";

/// `true`: the host sees the rootfs at `rootfs` in the bundle, as long as the container exists. For
/// tools that look for it; else no mount of the container's is in the host's mount table.
pub const SHOW: &str = "io.aril.rootfs.show";

/// `auto` or `auto:SIZE`: a user namespace of SIZE ids (65536) that no other container of this state root
/// has, out of what /etc/subuid and /etc/subgid grant. Where root runs it, the rootfs is shown with its
/// owners mapped.
pub const USERNS: &str = "io.aril.userns";

/// Ports of the host that lead to the container, with commas between:
/// `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]`. Needs `bridge`.
pub const NETWORK_PUBLISH: &str = "io.aril.network.publish";

/// The container's address on the network, instead of a free one; with a comma, one of each family.
pub const NETWORK_ADDRESS: &str = "io.aril.network.address";

/// DNS servers for the container instead of the host's: addresses, with commas between.
pub const NETWORK_DNS: &str = "io.aril.network.dns";

/// Domains that names are looked up in, instead of the host's, with commas between.
pub const NETWORK_DNS_SEARCH: &str = "io.aril.network.dns-search";

/// More names for /etc/hosts: `NAME:ADDRESS`, with commas between.
pub const NETWORK_HOSTS: &str = "io.aril.network.hosts";

/// Bandwidth of the link, in bits a second: `10mbit`, or `in=10mbit,out=1mbit`.
pub const NETWORK_RATE: &str = "io.aril.network.rate";

/// The network: `none`, `host`, `bridge`, `bridge:NAME`, `container:ID`, `ns:/PATH`, or for a container without
/// root `pasta`: a new network namespace, connected by the program of that name (package passt). Without
/// it, the network namespace is as the config says, and empty.
pub const NETWORK: &str = "io.aril.network";

/// What the container's programs may do with files, TCP ports and the processes of others, enforced by
/// the kernel's Landlock: a JSON document, which `docs/landlock.md` describes. Sets no_new_privs.
pub const LANDLOCK: &str = "io.aril.landlock";

/// What was enforced of [`LANDLOCK`]: Aril adds it to the annotations in `state` and in what hooks read,
/// and never reads it. One that config.json has is dropped: it would be a false report.
pub const LANDLOCK_ENFORCED: &str = "io.aril.landlock.enforced";

/// How far an annotation reaches, and so what it takes for it to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reaches nothing but the container: acts unless the operator denies it.
    Harmless,
    /// Uses what the host has for containers: acts if the operator allows the key or a prefix of it.
    Container,
    /// Names paths, namespaces, ports or properties of the host: acts only if the operator allows the
    /// key itself, in full.
    Host,
    /// Has Aril's prefix, and no meaning.
    Unknown,
}

/// Properties that engines set, and that reach no further than the container's own unit: CRI-O's, and
/// those of runc's tests. Any other may reach the host: `SuccessAction=poweroff` (CVE-2024-3154).
const OWN_PROPERTIES: [&str; 7] = [
    "After",
    "CollectMode",
    "DefaultDependencies",
    "RuntimeMaxSec",
    "RuntimeMaxUSec",
    "TimeoutStopSec",
    "TimeoutStopUSec",
];

/// The class of an annotation; `None`: Aril passes it through.
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

/// True for `PORT[-PORT]:...` from 1024 on, on all addresses of the host.
fn is_high_port(published: &str) -> bool {
    const FIRST_UNPRIVILEGED: u16 = 1024;
    let parts: Vec<_> = published.trim().split(':').collect();
    let [host, _container] = parts[..] else { return false };
    let number = |text: &str| text.parse::<u16>().is_ok_and(|port| port >= FIRST_UNPRIVILEGED);
    host.split('-').all(number)
}

/// True if an annotation with this key, or some key with this prefix, can act.
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
