//! Finds the user of `run --user` in the image's /etc/passwd and /etc/group, before a container exists.
//!
//! A number is never looked up as a name: see [`Principal`].

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::error::{Error, Kind, OsContext, Result};
use crate::fs::{Proc, Root};
use crate::id::{Principal, number};
use crate::spec::edit::Account;
use crate::sys::Errno;
use crate::sys::open::open;

/// Maximum number of bytes that are read from a file.
const LONGEST: u64 = 10 << 20;

/// Finds `USER[:GROUP]`. Each part is a number, or a name in the image. `layers` are the directories of the image, the
/// lowest first.
///
/// # Errors
///
/// The text is not `USER[:GROUP]`, a name is not in the image, or an entry has no number.
pub fn find(text: &str, layers: &[PathBuf]) -> Result<Account> {
    find_in(text, &topmost_first(layers)?)
}

/// Finds groups, each a number or a name in the same image.
///
/// # Errors
///
/// A text is neither a number nor a name in the image.
pub fn groups(texts: &[String], layers: &[PathBuf]) -> Result<Vec<u32>> {
    let parse = |text: &String| principal("group-add", text, text).map(|_| ());
    texts.iter().try_for_each(parse)?;
    let is_name = |text: &String| number(text).is_none();
    let groups = match texts.iter().any(is_name) {
        true => read(&topmost_first(layers)?, c"/etc/group")?,
        false => String::new(),
    };
    texts.iter().map(|text| group_id(principal("group-add", text, text)?, &groups)).collect()
}

fn topmost_first(layers: &[PathBuf]) -> Result<Vec<Root>> {
    let open = |layer: &PathBuf| {
        let opened = open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY);
        opened.map(Root::new).os("open", layer.display())
    };
    layers.iter().rev().map(open).collect()
}

/// Finds `USER[:GROUP]` in one root directory, or in several: the topmost first.
///
/// # Errors
///
/// The errors of [`find`].
pub fn find_in(text: &str, roots: &[Root]) -> Result<Account> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(str::is_empty) {
        let text = format!("invalid value {text:?} for flag --user: want USER[:GROUP]");
        return Err(Error::new(Kind::Usage, text));
    }
    let user = principal("user", text, user)?;
    let group = group.map(|group| principal("user", text, group)).transpose()?;
    let passwd = read(roots, c"/etc/passwd")?;
    let groups = read(roots, c"/etc/group")?;
    account(user, group, &passwd, &groups)
}

/// Reads a file from the topmost directory that has it. Returns an empty text if none has it.
fn read(roots: &[Root], path: &CStr) -> Result<String> {
    let name = path.to_string_lossy();
    let proc = Proc::of_the_host()?;
    for root in roots {
        let fd = match root.regular_file(path, &proc) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(errno) => return Err(errno).os("open", &name),
            Ok(Some(fd)) => fd,
            // A whiteout (device 0:0) marks a deleted file. Other files that are not regular count as empty.
            Ok(None) => break,
        };
        let mut bytes = Vec::new();
        File::from(fd).take(LONGEST).read_to_end(&mut bytes).os("read", &name)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(String::new())
}

/// Parses a user or a group. `text` is the whole value of the flag, for the error.
fn principal<'a>(flag: &str, text: &str, part: &'a str) -> Result<Principal<'a>> {
    Principal::parse(part).map_err(|why| {
        let text = format!("invalid value {text:?} for flag --{flag}: {part:?}: {why}");
        Error::new(Kind::Usage, text)
    })
}

fn account(
    user: Principal,
    group: Option<Principal>,
    passwd: &str,
    groups: &str,
) -> Result<Account> {
    let entry = lines(passwd).find(|fields| match user {
        Principal::Number(uid) => fields.get(2).and_then(|field| number(field)) == Some(uid),
        Principal::Name(name) => fields[0] == name,
    });
    let of_entry = |at| match (user, &entry) {
        (Principal::Name(name), Some(fields)) => id(fields, at, name, "/etc/passwd").map(Some),
        (Principal::Name(name), None) => Err(missing("user", name, "/etc/passwd")),
        (Principal::Number(uid), Some(fields)) => {
            id(fields, at, &uid.to_string(), "/etc/passwd").map(Some)
        }
        (Principal::Number(_), None) => Ok(None),
    };
    let uid = match user {
        Principal::Number(uid) => uid,
        Principal::Name(_) => of_entry(2)?.unwrap_or_default(),
    };
    let gid = match group {
        Some(group) => group_id(group, groups)?,
        None => of_entry(3)?.unwrap_or_default(),
    };
    // With an explicit group, the process has no other groups.
    let name = entry.as_ref().map(|fields| fields[0]).filter(|_| group.is_none());
    let member = |fields: &Vec<&str>| {
        name.is_some_and(|name| fields.get(3).is_some_and(|m| m.split(',').any(|m| m == name)))
    };
    let mut additional_gids: Vec<_> =
        lines(groups).filter(member).filter_map(|fields| number(fields.get(2)?)).collect();
    additional_gids.retain(|other| *other != gid);
    Ok(Account { uid, gid, additional_gids })
}

fn group_id(group: Principal, groups: &str) -> Result<u32> {
    let name = match group {
        Principal::Number(gid) => return Ok(gid),
        Principal::Name(name) => name,
    };
    let entry = lines(groups).find(|fields| fields[0] == name);
    let entry = entry.ok_or_else(|| missing("group", name, "/etc/group"))?;
    id(&entry, 2, name, "/etc/group")
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

fn id(fields: &[&str], at: usize, name: &str, file: &str) -> Result<u32> {
    let found = fields.get(at).and_then(|field| number(field));
    found.ok_or_else(|| Error::config(format!("{file} of the image: {name} has no ID")))
}

fn missing(kind: &str, name: &str, file: &str) -> Error {
    Error::config(format!("no {kind} {name:?} in {file} of the image"))
        .hint("use a numeric ID, which is not looked up in the image")
}

/// Checks for `runtime-tests/fuzz/` that a number is that user, independent of the files.
#[cfg(fuzzing)]
pub fn check_files(passwd: &str, groups: &str) {
    for user in ["root", "mail", "8", "1000"] {
        for group in [None, Some("adm"), Some("7")] {
            let parsed = |text| Principal::parse(text).expect("a name or a number");
            let found = account(parsed(user), group.map(parsed), passwd, groups);
            let (Ok(found), Some(uid)) = (found, number(user)) else { continue };
            assert_eq!(found.uid, uid);
            assert!(group != Some("7") || found.gid == 7);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Account> {
        let group = group.map(|group| principal("", "", group)).transpose()?;
        super::account(principal("", "", user)?, group, passwd, groups)
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nmail:x:8:12:mail:/:/bin/sh\n\
                          1000:x:0:0:a trap:/:/bin/sh\nbroken:x:y:z\n";
    const GROUP: &str = "root:x:0:\nmail:x:12:mail\nadm:x:4:root,mail\n";

    fn of(user: &str, group: Option<&str>) -> Account {
        account(user, group, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn names_and_numbers() {
        let ids = |a: Account| (a.uid, a.gid, a.additional_gids);
        assert_eq!(ids(of("mail", None)), (8, 12, vec![4]));
        assert_eq!(ids(of("8", None)), (8, 12, vec![4]));
        assert_eq!(ids(of("mail", Some("adm"))), (8, 4, vec![]));
        assert_eq!(ids(of("77", None)), (77, 0, vec![]));
        assert_eq!(ids(of("77", Some("78"))), (77, 78, vec![]));
        // The entry whose name is the number must not be used.
        assert_eq!(ids(of("1000", None)), (1000, 0, vec![]));
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        for (user, group) in [("absent", None), ("root", Some("wheel")), ("broken", None)] {
            assert!(account(user, group, PASSWD, GROUP).is_err(), "{user}");
        }
        for text in ["", ":", "root:", ":root"] {
            assert!(find(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_beyond_the_range_is_not_a_name() {
        let passwd = "4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n 0:x:0:0::/:\n";
        for (user, group) in
            [("4294967296", None), ("-1", None), (" 0", None), ("1000", Some("4294967296"))]
        {
            let text = account(user, group, passwd, "4294967296:x:0:\n").unwrap_err().to_string();
            assert!(text.ends_with("from 0 to 4294967294"), "{text}");
        }
    }
}
