//! Plans the id mapping of a bind mount: from its mappings, from its options, or from the container's mappings.
//!
//! `idmap` alone means the container's mappings. `idmap=uids=0-1000-1#1-2000-5;gids=@0-0-1` contains ranges *ID on disk
//! - ID on the host - count*, as in crun. After `@` the second number is an ID of the container.

use oci_spec::runtime::{LinuxIdMapping, Mount};

use super::{RootfsRequest, ranges};
use crate::error::{Context, Error, Result};
use crate::rootfs::IdMap;
use crate::rootfs::options::Options;
use crate::sys::mount::Extent;

pub(super) fn plan(
    request: &RootfsRequest<'_>,
    mount: &Mount,
    options: &Options,
) -> Result<Option<IdMap>> {
    let own = |m: &Option<Vec<_>>| m.as_deref().map(ranges).unwrap_or_default();
    let (uids, gids) = (own(mount.uid_mappings()), own(mount.gid_mappings()));
    if uids.is_empty() && gids.is_empty() && options.id_map.is_none() {
        return Ok(None);
    }
    if request.rootless {
        let text = "id-mapped mounts are not supported for rootless containers";
        return Err(Error::config(text));
    }
    let extent = options.id_map.unwrap_or(Extent::One);
    let (uids, gids) = match (uids.is_empty(), gids.is_empty(), &options.id_map_text) {
        (false, false, None) => (uids, gids),
        (true, true, Some(words)) => {
            from_option(request, words).context(|| format!("mount option idmap={words}"))?
        }
        (true, true, None)
            if !request.uid_mappings.is_empty() && !request.gid_mappings.is_empty() =>
        {
            (ranges(request.uid_mappings), ranges(request.gid_mappings))
        }
        (_, _, Some(_)) => {
            let text = "id-mapped mounts take their mappings from options or from fields, not both";
            return Err(Error::config(text));
        }
        (true, true, None) => {
            let text = "id-mapped mounts must have both uid and gid mappings specified";
            return Err(Error::config(text)
                .hint("without a user namespace, set uidMappings and gidMappings of the mount"));
        }
        _ => {
            let text = "id-mapped mounts must have both uid and gid mappings specified";
            return Err(Error::config(text));
        }
    };
    Ok(Some(IdMap { extent, uids, gids }))
}

type Ranges = Vec<[u32; 3]>;

fn from_option(request: &RootfsRequest<'_>, words: &str) -> Result<(Ranges, Ranges)> {
    let (mut uids, mut gids) = (Ranges::new(), Ranges::new());
    for part in words.split(';').filter(|part| !part.is_empty()) {
        let (key, list) = part.split_once('=').unwrap_or((part, ""));
        let (into, container) = match key {
            "uids" => (&mut uids, request.uid_mappings),
            "gids" => (&mut gids, request.gid_mappings),
            _ => return Err(Error::config(format!("{key:?} is neither uids nor gids"))),
        };
        let (list, relative) = match list.strip_prefix('@') {
            Some(list) => (list, true),
            None => (list, false),
        };
        for triplet in list.split('#') {
            let range = parse(triplet)?;
            into.push(if relative { host_range(range, container)? } else { range });
        }
    }
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::config(
            "id-mapped mounts must have both uid and gid mappings specified",
        ));
    }
    Ok((uids, gids))
}

fn parse(triplet: &str) -> Result<[u32; 3]> {
    let numbers: Vec<u32> = triplet.split('-').map_while(|n| n.parse().ok()).collect();
    match (numbers.as_slice(), triplet.split('-').count()) {
        (&[disk, host, size], 3) if size > 0 => Ok([disk, host, size]),
        _ => Err(Error::config(format!(
            "invalid range {triplet:?}: expected DISK-HOST-COUNT, three numbers"
        ))),
    }
}

/// Replaces the second number, an ID of the container, by the host's ID.
fn host_range([disk, id, size]: [u32; 3], map: &[LinuxIdMapping]) -> Result<[u32; 3]> {
    let holds = |m: &&LinuxIdMapping| {
        id >= m.container_id()
            && u64::from(id) + u64::from(size) <= u64::from(m.container_id()) + u64::from(m.size())
    };
    let entry = map.iter().find(holds).ok_or_else(|| {
        let text =
            format!("no entry of the container's mappings contains the {size} IDs from {id}");
        Error::config(text)
    })?;
    Ok([disk, entry.host_id() + (id - entry.container_id()), size])
}
