//! A user by name, as `--user` of `run` has it: looked up in the image's own files, before there is a
//! container. What is a number is never looked up (CVE-2016-3697).

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::error::{Error, Kind, OsContext, Result};
use crate::fs::{Proc, Root};
use crate::spec::edit::Account;
use crate::sys::Errno;
use crate::sys::open::open;

/// What is read of a file at most.
const LONGEST: u64 = 10 << 20;

/// `USER[:GROUP]`, each a number or a name in the image that the folders make, the lowest first.
pub fn find(text: &str, layers: &[PathBuf]) -> Result<Account> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group.is_some_and(str::is_empty) {
        let text = format!("invalid value {text:?} for flag --user: want USER[:GROUP]");
        return Err(Error::new(Kind::Usage, text));
    }
    let roots = layers
        .iter()
        .rev()
        .map(|layer| open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY).os("open", layer.display()))
        .collect::<Result<Vec<_>>>()?;
    let roots: Vec<_> = roots.into_iter().map(Root::new).collect();
    let passwd = read(&roots, c"/etc/passwd")?;
    let groups = read(&roots, c"/etc/group")?;
    account(user, group, &passwd, &groups)
}

/// The file of the topmost folder that has it; none is an empty one.
fn read(roots: &[Root], path: &CStr) -> Result<String> {
    let name = path.to_string_lossy();
    let proc = Proc::of_the_host()?;
    for root in roots {
        let fd = match root.regular_file(path, &proc) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(errno) => return Err(errno).os("open", &name),
            Ok(Some(fd)) => fd,
            // A device of 0:0 says that it is deleted; others say nothing.
            Ok(None) => break,
        };
        let mut bytes = Vec::new();
        File::from(fd).take(LONGEST).read_to_end(&mut bytes).os("read", &name)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(String::new())
}

fn account(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Account> {
    let entry = lines(passwd).find(|fields| match number(user) {
        Some(uid) => fields.get(2).and_then(|field| number(field)) == Some(uid),
        None => fields[0] == user,
    });
    let uid = match (number(user), &entry) {
        (Some(uid), _) => uid,
        (None, Some(fields)) => id(fields, 2, user, "/etc/passwd")?,
        (None, None) => return Err(missing("user", user, "/etc/passwd")),
    };
    let gid = match (group, &entry) {
        (Some(group), _) => group_id(group, groups)?,
        (None, Some(fields)) => id(fields, 3, user, "/etc/passwd")?,
        (None, None) => 0,
    };
    // With a group that is asked for, it is the only one.
    let name = entry.as_ref().map(|fields| fields[0]).filter(|_| group.is_none());
    let member = |fields: &Vec<&str>| {
        name.is_some_and(|name| fields.get(3).is_some_and(|m| m.split(',').any(|m| m == name)))
    };
    let mut additional_gids: Vec<_> =
        lines(groups).filter(member).filter_map(|fields| number(fields.get(2)?)).collect();
    additional_gids.retain(|other| *other != gid);
    Ok(Account { uid, gid, additional_gids })
}

fn group_id(group: &str, groups: &str) -> Result<u32> {
    if let Some(gid) = number(group) {
        return Ok(gid);
    }
    let entry = lines(groups).find(|fields| fields[0] == group);
    let entry = entry.ok_or_else(|| missing("group", group, "/etc/group"))?;
    id(&entry, 2, group, "/etc/group")
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

fn id(fields: &[&str], at: usize, name: &str, file: &str) -> Result<u32> {
    let found = fields.get(at).and_then(|field| number(field));
    found.ok_or_else(|| Error::config(format!("{file} of the image: {name} has no number")))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn missing(kind: &str, name: &str, file: &str) -> Error {
    Error::config(format!("no {kind} {name:?} in {file} of the image"))
        .hint("a number needs no entry")
}

/// For `runtime-tests/fuzz/`: a number is that user, whatever the files hold.
#[cfg(fuzzing)]
pub fn check_files(passwd: &str, groups: &str) {
    for user in ["root", "mail", "8", "1000"] {
        for group in [None, Some("adm"), Some("7")] {
            let found = account(user, group, passwd, groups);
            let (Ok(found), Some(uid)) = (found, number(user)) else { continue };
            assert_eq!(found.uid, uid);
            assert!(group != Some("7") || found.gid == 7);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Not the entry that is called so.
        assert_eq!(ids(of("1000", None)), (1000, 0, vec![]));
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        for (user, group) in [("nobody", None), ("root", Some("wheel")), ("broken", None)] {
            assert!(account(user, group, PASSWD, GROUP).is_err(), "{user}");
        }
        for text in ["", ":", "root:", ":root"] {
            assert!(find(text, &[]).is_err(), "{text}");
        }
    }
}
