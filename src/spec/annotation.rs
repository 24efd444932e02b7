//! The annotations that aril itself understands. All start with `io.aril.`; every other one is the
//! caller's own and only passed through, to `state` and to hooks.

use oci_spec::runtime::Spec;

/// How all of them begin.
pub const OURS: &str = "io.aril.";

/// The folders that the rootfs is made of, lowest first: separated by colons, or a JSON list of
/// strings. Relative ones are relative to the bundle; at most 500. The list is complete: `root.path`
/// is a layer only if it is in it, and else just an empty place.
pub const LAYERS: &str = "io.aril.rootfs.layers";

/// Who takes what the container writes to its root: `ephemeral` (gone with the container; the default
/// where there are layers), `ephemeral:SIZE`, `tmpfs`, `tmpfs:SIZE`, or a directory that is kept,
/// with a slash in its name, `DIR/:SIZE` with a limit; `{"upper":DIR,"work":DIR}`: two directories that
/// are there, of one file system, which the caller gives to nobody else. On a disk a SIZE needs its
/// file system's project quotas. Without layers, `root.path` is the one layer.
pub const UPPER: &str = "io.aril.rootfs.upper";

/// `true`: the host sees the rootfs at `rootfs` in the bundle, as long as the container is there. For
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
/// How fast the link may be, in bits a second: `10mbit`, or `in=10mbit,out=1mbit`.
pub const NETWORK_RATE: &str = "io.aril.network.rate";

/// The network: `none`, `host`, `bridge`, `bridge:NAME`, `container:ID`, `ns:/PATH`, or for a container without
/// root `pasta`: a new network namespace, connected by the program of that name (package passt). Without
/// it, the network namespace is as the config says, and empty.
pub const NETWORK: &str = "io.aril.network";

/// What the container's programs may do with files, TCP ports and the processes of others, enforced by
/// the kernel's Landlock: a JSON document, which `docs/landlock.md` describes. no_new_privs comes with it.
pub const LANDLOCK: &str = "io.aril.landlock";

/// What was enforced of [`LANDLOCK`]: not read, but added to what `state` and hooks are told.
pub const LANDLOCK_ENFORCED: &str = "io.aril.landlock.enforced";

/// The value of one annotation, if the config has it.
pub fn value<'a>(spec: &'a Spec, key: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(key).map(String::as_str)
}

/// Gives an annotation its value, in place of the one that was there: how an option of `run` says what
/// the annotation of the same meaning would.
pub fn set(spec: &mut Spec, key: &str, value: impl Into<String>) {
    let mut annotations = spec.annotations_mut().take().unwrap_or_default();
    annotations.insert(key.to_owned(), value.into());
    spec.set_annotations(Some(annotations));
}

#[cfg(test)]
mod tests {
    use super::{set, value};
    use oci_spec::runtime::Spec;

    #[test]
    fn the_last_value_stands() {
        let mut spec = Spec::default();
        assert_eq!(value(&spec, "io.aril.x"), None);
        set(&mut spec, "io.aril.x", "1");
        set(&mut spec, "io.aril.x", "2");
        assert_eq!(value(&spec, "io.aril.x"), Some("2"));
    }
}
