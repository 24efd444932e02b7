//! Parses mount options with one table.
//!
//! Names that are not in the table are parameters of the file system, which keep their order.

use libc::{
    MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC,
    MS_NOSUID, MS_NOSYMFOLLOW, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_SHARED, MS_SLAVE,
    MS_STRICTATIME, MS_SYNCHRONOUS, MS_UNBINDABLE,
};

use crate::sys::mount::{
    ATTR_ATIME, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID,
    ATTR_NOSYMFOLLOW, ATTR_RDONLY, ATTR_STRICTATIME, Attributes, Extent,
};

/// Effect of a mount option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Sets a flag of the mount or of its superblock.
    Set(u64),
    /// Clears a flag, also one that a bind mount would inherit.
    Clear(u64),
    Bind(Extent),
    /// Keeps the current flags, and applies the others to them.
    Remount,
    Propagation(u64),
    /// Sets and clears attributes of this mount and of all mounts below it.
    Recursive(u64, u64),
    /// Copies the covered content into a new tmpfs.
    CopyUp,
    IdMap(Extent),
    /// Changes the handling of symlinks at the source or the target of a bind mount.
    Link(Links),
    /// Has no effect: the default of the kernel, or obsolete.
    Nothing,
}

use Meaning::{Bind, Clear, CopyUp, IdMap, Link, Nothing, Propagation, Recursive, Remount, Set};

/// Options sorted by name: `features` prints the options in this order.
const TABLE: &[(&str, Meaning)] = &[
    ("async", Clear(MS_SYNCHRONOUS)),
    ("atime", Clear(MS_NOATIME)),
    ("bind", Bind(Extent::One)),
    ("copy-symlink", Link(Links { copy: true, ..Links::NONE })),
    ("defaults", Nothing),
    ("dest-nofollow", Link(Links { keep_target: true, ..Links::NONE })),
    ("dev", Clear(MS_NODEV)),
    ("diratime", Clear(MS_NODIRATIME)),
    ("dirsync", Set(MS_DIRSYNC)),
    ("exec", Clear(MS_NOEXEC)),
    ("idmap", IdMap(Extent::One)),
    // Only ext4 used this option. Since Linux 6.0 it is always enabled.
    ("iversion", Nothing),
    ("lazytime", Set(MS_LAZYTIME)),
    ("loud", Nothing),
    ("mand", Set(MS_MANDLOCK)),
    ("noatime", Set(MS_NOATIME)),
    ("nodev", Set(MS_NODEV)),
    ("nodiratime", Set(MS_NODIRATIME)),
    ("noexec", Set(MS_NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Clear(MS_LAZYTIME)),
    ("nomand", Clear(MS_MANDLOCK)),
    ("norelatime", Clear(MS_RELATIME)),
    ("nostrictatime", Clear(MS_STRICTATIME)),
    ("nosuid", Set(MS_NOSUID)),
    ("nosymfollow", Set(MS_NOSYMFOLLOW)),
    ("private", Propagation(MS_PRIVATE)),
    ("ratime", Recursive(0, ATTR_NOATIME)),
    ("rbind", Bind(Extent::Tree)),
    ("rdev", Recursive(0, ATTR_NODEV)),
    ("rdiratime", Recursive(0, ATTR_NODIRATIME)),
    ("relatime", Set(MS_RELATIME)),
    ("remount", Remount),
    ("rexec", Recursive(0, ATTR_NOEXEC)),
    ("ridmap", IdMap(Extent::Tree)),
    ("rnoatime", Recursive(ATTR_NOATIME, 0)),
    ("rnodev", Recursive(ATTR_NODEV, 0)),
    ("rnodiratime", Recursive(ATTR_NODIRATIME, 0)),
    ("rnoexec", Recursive(ATTR_NOEXEC, 0)),
    ("rnorelatime", Recursive(0, ATTR_ATIME)),
    ("rnostrictatime", Recursive(0, ATTR_STRICTATIME)),
    ("rnosuid", Recursive(ATTR_NOSUID, 0)),
    ("rnosymfollow", Recursive(ATTR_NOSYMFOLLOW, 0)),
    ("ro", Set(MS_RDONLY)),
    ("rprivate", Propagation(MS_PRIVATE | MS_REC)),
    ("rrelatime", Recursive(0, ATTR_ATIME)),
    ("rro", Recursive(ATTR_RDONLY, 0)),
    ("rrw", Recursive(0, ATTR_RDONLY)),
    ("rshared", Propagation(MS_SHARED | MS_REC)),
    ("rslave", Propagation(MS_SLAVE | MS_REC)),
    ("rstrictatime", Recursive(ATTR_STRICTATIME, 0)),
    ("rsuid", Recursive(0, ATTR_NOSUID)),
    ("rsymfollow", Recursive(0, ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagation(MS_UNBINDABLE | MS_REC)),
    ("rw", Clear(MS_RDONLY)),
    ("shared", Propagation(MS_SHARED)),
    ("silent", Nothing),
    ("slave", Propagation(MS_SLAVE)),
    ("src-nofollow", Link(Links { keep_source: true, ..Links::NONE })),
    ("strictatime", Set(MS_STRICTATIME)),
    ("suid", Clear(MS_NOSUID)),
    ("symfollow", Clear(MS_NOSYMFOLLOW)),
    ("sync", Set(MS_SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(MS_UNBINDABLE)),
];

/// Returns all options that are not parameters of a file system, sorted.
pub fn recognised() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// Flags of the superblock, with their names for fsconfig(2).
pub const OF_SUPER_BLOCK: [(u64, &std::ffi::CStr); 4] = [
    (MS_SYNCHRONOUS, c"sync"),
    (MS_DIRSYNC, c"dirsync"),
    (MS_MANDLOCK, c"mand"),
    (MS_LAZYTIME, c"lazytime"),
];

/// Attributes of the atime of files and of directories.
pub const ATIME: u64 = ATTR_ATIME | ATTR_NODIRATIME;

const OF_ATIME: u64 = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;

/// `MS_*` flags with the corresponding attributes of mount_setattr(2).
const ATTRIBUTES: [(u64, u64); 8] = [
    (MS_RDONLY, ATTR_RDONLY),
    (MS_NOSUID, ATTR_NOSUID),
    (MS_NODEV, ATTR_NODEV),
    (MS_NOEXEC, ATTR_NOEXEC),
    (MS_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
    (MS_NODIRATIME, ATTR_NODIRATIME),
    (MS_STRICTATIME, ATTR_STRICTATIME),
    (MS_NOATIME, ATTR_NOATIME),
];

/// Handling of symlinks, which are followed otherwise. The options are crun's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Links {
    /// `copy-symlink`: if the source is a symlink, the same symlink is created at the target.
    pub copy: bool,
    /// `src-nofollow`: if the source is a symlink, the symlink itself is bind-mounted.
    pub keep_source: bool,
    /// `dest-nofollow`: if the target is a symlink, the mount covers the symlink itself.
    pub keep_target: bool,
}

impl Links {
    const NONE: Self = Self { copy: false, keep_source: false, keep_target: false };
}

/// Parsed options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `MS_*` flags of the mount and of the superblock.
    pub flags: u64,
    /// `MS_*` flags that options clear.
    pub cleared: u64,
    pub bind: Option<Extent>,
    pub remount: bool,
    /// Propagation types in the order of the options.
    pub propagation: Vec<u64>,
    pub recursive: Attributes,
    pub copy_up: bool,
    pub links: Links,
    pub id_map: Option<Extent>,
    /// Text after `idmap=` or `ridmap=`.
    pub id_map_text: Option<String>,
    /// Parameters of the file system. One text may contain several, separated by commas.
    pub data: Vec<String>,
}

impl Options {
    pub fn parse<'o>(options: impl IntoIterator<Item = &'o str>) -> Self {
        let mut read = Self::default();
        for option in options {
            match TABLE.binary_search_by_key(&option, |(name, _)| name) {
                Ok(found) => read.apply(TABLE[found].1),
                Err(_) if option.is_empty() => {}
                Err(_) if read.apply_id_map(option) => {}
                Err(_) => read.data.push(option.to_owned()),
            }
        }
        read
    }

    fn apply(&mut self, meaning: Meaning) {
        match meaning {
            Set(flag) => {
                self.flags |= flag;
                self.cleared &= !flag;
            }
            Clear(flag) => {
                self.flags &= !flag;
                self.cleared |= flag;
            }
            // The flags are combined: MS_BIND, and MS_BIND with MS_REC.
            Bind(extent) => {
                let tree = [Some(extent), self.bind].contains(&Some(Extent::Tree));
                self.bind = Some(if tree { Extent::Tree } else { Extent::One });
            }
            Remount => self.remount = true,
            Propagation(kind) => self.propagation.push(kind),
            Recursive(set, clear) => self.apply_recursive(set, clear),
            CopyUp => self.copy_up = true,
            IdMap(extent) => self.id_map = Some(extent),
            Link(links) => {
                self.links.copy |= links.copy;
                self.links.keep_source |= links.keep_source;
                self.links.keep_target |= links.keep_target;
            }
            Nothing => {}
        }
    }

    fn apply_id_map(&mut self, option: &str) -> bool {
        let Some((name @ ("idmap" | "ridmap"), words)) = option.split_once('=') else {
            return false;
        };
        self.id_map = Some(if name == "ridmap" { Extent::Tree } else { Extent::One });
        self.id_map_text = Some(words.to_owned());
        true
    }

    /// Applies a recursive option. A later option has priority, as in runc since 1.2. `rrelatime` sets no bit and
    /// clears nothing.
    fn apply_recursive(&mut self, set: u64, clear: u64) {
        let all = &mut self.recursive;
        if clear != ATTR_ATIME {
            all.set &= !clear;
        }
        if set & ATTR_ATIME != 0 {
            all.set &= !ATTR_ATIME;
        }
        all.set |= set;
        all.clear = (all.clear | clear) & !set;
        if (all.set | all.clear) & ATTR_ATIME != 0 {
            // The atime is a field, not single bits: the kernel requires the whole field to be cleared before it is
            // set.
            all.clear |= ATTR_ATIME;
        }
    }

    /// Returns the attributes of a new mount.
    pub fn attributes(&self) -> u64 {
        attributes(self.flags)
    }

    /// Returns the change to the attributes of the source of a bind mount. `None` keeps them.
    pub fn change(&self) -> Option<Attributes> {
        if self.flags | self.cleared == 0 {
            return None;
        }
        let set = self.attributes();
        let mut clear = if self.remount {
            bits(self.cleared) & !ATIME
        } else {
            // Like a remount by mount(2): attributes that no option sets are cleared.
            ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW
        };
        // Also like mount(2): an option that only clears an atime flag keeps the atime of the source.
        if self.flags & OF_ATIME != 0 {
            clear |= ATIME;
        }
        // The kernel requires the whole atime field to be cleared before it is set.
        Some(Attributes { set, clear: clear & !(set & !ATTR_ATIME), propagation: 0 })
    }

    /// Returns the attributes that the config clears explicitly. It is an error if the source has a locked one.
    pub fn demanded(&self) -> u64 {
        bits(self.cleared)
    }
}

fn bits(flags: u64) -> u64 {
    ATTRIBUTES
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |all, (_, attribute)| all | attribute)
}

/// Converts flags to attributes, with one atime attribute at most: the one with priority in mount(2).
fn attributes(flags: u64) -> u64 {
    let all = bits(flags);
    match all & ATTR_ATIME {
        both if both == ATTR_NOATIME | ATTR_STRICTATIME => all & !ATTR_NOATIME,
        _ => all,
    }
}

/// Returns the `MS_*` flags for `attributes`, for kernels without mount_setattr(2).
pub fn flags(attributes: u64) -> u64 {
    ATTRIBUTES
        .iter()
        .filter(|(_, attribute)| attributes & attribute != 0)
        .fold(0, |all, (flag, _)| all | flag)
}

/// Returns the propagation flags for a name of `rootfsPropagation` or of a mount option.
pub fn propagation(name: &str) -> Option<u64> {
    match TABLE.binary_search_by_key(&name, |(name, _)| name).map(|found| TABLE[found].1) {
        Ok(Propagation(kind)) => Some(kind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Options {
        Options::parse(options.split(','))
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for needed in [
            "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand",
            "noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime",
            "nostrictatime nosuid nosymfollow rbind relatime remount ro rw silent strictatime",
            "suid sync symfollow private rprivate slave rslave shared rshared unbindable",
            "runbindable rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime",
            "rrelatime rnorelatime rnoatime ratime rstrictatime rnostrictatime rnosymfollow",
            "rsymfollow tmpcopyup idmap ridmap",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        {
            assert!(recognised().contains(&needed), "{needed}");
        }
        assert_eq!(TABLE.len(), 65);
    }

    #[test]
    fn every_name_is_read_as_itself() {
        for (name, meaning) in TABLE {
            let read = parse(name);
            assert!(read.data.is_empty(), "{name}");
            match *meaning {
                Set(flag) => assert_eq!((read.flags, read.cleared), (flag, 0), "{name}"),
                Clear(flag) => assert_eq!((read.flags, read.cleared), (0, flag), "{name}"),
                Bind(extent) => assert_eq!(read.bind, Some(extent), "{name}"),
                IdMap(extent) => assert_eq!(read.id_map, Some(extent), "{name}"),
                Link(links) => assert_eq!(read.links, links, "{name}"),
                Propagation(kind) => {
                    assert_eq!(read.propagation, [kind], "{name}");
                    assert_eq!(propagation(name), Some(kind), "{name}");
                }
                Recursive(set, clear) => {
                    assert_eq!(read.recursive.set, set, "{name}");
                    assert_eq!(read.recursive.clear & clear, clear, "{name}");
                }
                Remount => assert!(read.remount),
                CopyUp => assert!(read.copy_up),
                Nothing => assert_eq!(read, Options::default(), "{name}"),
            }
        }
    }

    #[test]
    fn binds_add_up() {
        for both in ["rbind,bind", "bind,rbind", "rbind,rw,bind"] {
            assert_eq!(parse(both).bind, Some(Extent::Tree), "{both}");
        }
        assert_eq!(parse("bind,bind").bind, Some(Extent::One));
    }

    #[test]
    fn the_later_option_wins() {
        assert_eq!(parse("ro,rw").flags, 0);
        assert_eq!(parse("ro,rw").cleared, MS_RDONLY);
        assert_eq!(parse("rw,ro").cleared, 0);
    }

    #[test]
    fn the_later_recursive_option_wins() {
        for (options, set, clear) in [
            ("rro,rrw", 0, ATTR_RDONLY),
            ("rrw,rro", ATTR_RDONLY, 0),
            ("rnodev,rdev", 0, ATTR_NODEV),
            ("rdev,rnodev", ATTR_NODEV, 0),
            ("rnoatime,ratime", 0, ATTR_ATIME),
            ("ratime,rnoatime", ATTR_NOATIME, ATTR_ATIME),
            ("rstrictatime,rnostrictatime", 0, ATTR_ATIME),
            ("rnoatime,rstrictatime", ATTR_STRICTATIME, ATTR_ATIME),
            ("rstrictatime,rnoatime", ATTR_NOATIME, ATTR_ATIME),
            ("rrelatime,rnoatime", ATTR_NOATIME, ATTR_ATIME),
            ("rnoatime,rrelatime", ATTR_NOATIME, ATTR_ATIME),
        ] {
            let read = parse(options).recursive;
            assert_eq!((read.set, read.clear), (set, clear), "{options}");
        }
    }

    #[test]
    fn the_rest_is_the_file_systems() {
        let read = parse("nosuid,mode=755,size=65536k,acl");
        assert_eq!(read.data, ["mode=755", "size=65536k", "acl"]);
        assert_eq!(read.flags, MS_NOSUID);
    }

    #[test]
    fn a_bind_changes_nothing_unless_told() {
        assert_eq!(parse("rbind,rprivate").change(), None);
        let ro = parse("rbind,ro").change().unwrap();
        assert_eq!(ro.set, ATTR_RDONLY);
        assert_eq!(ro.clear, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW);
        let kept = parse("bind,remount,ro,exec").change().unwrap();
        assert_eq!((kept.set, kept.clear), (ATTR_RDONLY, ATTR_NOEXEC));
    }

    #[test]
    fn a_change_of_atime_clears_the_whole_field() {
        for option in ["noatime", "relatime", "strictatime", "nodiratime"] {
            let change = parse(&format!("bind,{option}")).change().unwrap();
            assert_eq!(change.clear & ATTR_ATIME, ATTR_ATIME, "{option}");
        }
        for option in ["rnoatime", "rrelatime", "rstrictatime", "ratime", "rnostrictatime"] {
            assert_eq!(parse(option).recursive.clear & ATTR_ATIME, ATTR_ATIME, "{option}");
        }
        let both = parse("rnoatime,rstrictatime").recursive;
        assert_eq!((both.set, both.clear), (ATTR_STRICTATIME, ATTR_ATIME));
    }

    /// mount(2) and runc keep the atime flags of the source in these cases, also with `remount`.
    #[test]
    fn clearing_an_atime_flag_changes_nothing() {
        for option in ["atime", "diratime", "norelatime", "nostrictatime", "nodev"] {
            for bind in ["bind", "bind,remount"] {
                let change = parse(&format!("{bind},{option}")).change().unwrap();
                assert_eq!((change.set | change.clear) & ATIME, 0, "{bind},{option}");
            }
        }
        let demanded = parse("bind,atime,nostrictatime,rw,symfollow").demanded();
        assert_eq!(demanded, ATTR_ATIME & 0x30 | ATTR_RDONLY | ATTR_NOSYMFOLLOW);
    }
}
