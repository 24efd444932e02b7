//! Translates host IDs in files to the container's, if it has a user namespace.

use std::ffi::CStr;

/// Range of IDs that begins at `container` in the container and at `host` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// Ranges of users and groups. Without ranges, IDs are unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    pub users: Vec<Range>,
    pub groups: Vec<Range>,
}

// linux/capability.h and linux/posix_acl_xattr.h
const CAPABILITY_REVISION: u32 = 0xff00_0000;
const CAPABILITY_2: u32 = 0x0200_0000;
const CAPABILITY_3: u32 = 0x0300_0000;
const CAPABILITY_2_SIZE: usize = 20;
const ACL_USER: u16 = 2;
const ACL_GROUP: u16 = 8;

impl Ids {
    /// Translates a user ID of the host.
    pub fn user(&self, id: u32) -> u32 {
        to_container(&self.users, id)
    }

    /// Translates a group ID of the host.
    pub fn group(&self, id: u32) -> u32 {
        to_container(&self.groups, id)
    }

    /// Value of an extended attribute as the container reads it. File capabilities and ACLs contain IDs.
    pub fn within(&self, name: &CStr, mut value: Vec<u8>) -> Vec<u8> {
        match name.to_bytes() {
            b"security.capability" => self.capability(&mut value),
            b"system.posix_acl_access" | b"system.posix_acl_default" => self.acl(&mut value),
            _ => {}
        }
        value
    }

    /// Turns revision 3 of a capability, which ends with the user namespace's root ID, into revision 2 if that is the
    /// container's root. The container's root sees revision 2.
    fn capability(&self, value: &mut Vec<u8>) {
        let Some((magic, _)) = value.split_first_chunk::<4>() else { return };
        let magic = u32::from_le_bytes(*magic);
        let root = value.get(CAPABILITY_2_SIZE..).and_then(|end| end.first_chunk::<4>());
        let Some(root) = root.map(|id| u32::from_le_bytes(*id)) else { return };
        if magic & CAPABILITY_REVISION == CAPABILITY_3 && self.user(root) == 0 {
            let magic = magic & !CAPABILITY_REVISION | CAPABILITY_2;
            value[..4].copy_from_slice(&magic.to_le_bytes());
            value.truncate(CAPABILITY_2_SIZE);
        }
    }

    /// Format: a version, then tag, permissions and ID in 8 bytes for each entry; little-endian.
    fn acl(&self, value: &mut [u8]) {
        for item in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
            let tag = u16::from_le_bytes([item[0], item[1]]);
            let id = u32::from_le_bytes([item[4], item[5], item[6], item[7]]);
            let id = match tag {
                ACL_USER => self.user(id),
                ACL_GROUP => self.group(id),
                _ => continue,
            };
            item[4..].copy_from_slice(&id.to_le_bytes());
        }
    }
}

/// Translates a host ID. An ID outside the ranges is unchanged: lower layers may contain the container's IDs, shifted
/// by an id-mapped mount only.
fn to_container(ranges: &[Range], id: u32) -> u32 {
    let range = ranges.iter().find(|r| id >= r.host && id - r.host < r.size);
    range.map_or(id, |r| r.container + (id - r.host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shifted() -> Ids {
        let range = Range { container: 0, host: 100_000, size: 65_536 };
        Ids { users: vec![range], groups: vec![range] }
    }

    #[test]
    fn host_ids_become_container_ids() {
        let ids = shifted();
        assert_eq!(
            [0, 1000, 100_000, 165_535, 165_536].map(|id| ids.user(id)),
            [0, 1000, 0, 65_535, 165_536]
        );
        assert_eq!(Ids::default().group(100_000), 100_000);
    }

    #[test]
    fn capabilities_of_the_containers_root() {
        let third = |root: u32| [&[1, 0, 0, 3][..], &[7; 16], &root.to_le_bytes()].concat();
        let second = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        let within = |value| shifted().within(c"security.capability", value);
        assert_eq!(within(third(100_000)), second);
        assert_eq!(within(third(99_999)), third(99_999));
        assert_eq!(within(second.clone()), second);
        assert_eq!(within(vec![1]), [1]);
    }

    #[test]
    fn ids_in_acls_are_translated() {
        let item =
            |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[6, 0], &id.to_le_bytes()].concat();
        let acl = |id| [vec![2, 0, 0, 0], item(1, u32::MAX), item(ACL_USER, id)].concat();
        let within = shifted().within(c"system.posix_acl_access", acl(100_007));
        assert_eq!(within, acl(7));
        assert_eq!(shifted().within(c"user.x", acl(100_007)), acl(100_007));
    }
}
