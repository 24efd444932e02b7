//! Output of `diff`: a letter and a path, as Docker prints, or JSON with all attributes.

use serde::Serialize;

use super::command::Format;
use super::output::{compact, print};
use crate::error::Result;
use crate::fs::tree::shown;
use crate::id::ContainerId;
use crate::layer::changes::Kind;
use crate::layer::{Entry, Form};
use crate::lifecycle::diff::{self, Difference};
use crate::lifecycle::inside::Place;
use crate::state::Store;

/// Prints the files that a container changed.
///
/// # Errors
///
/// The container's files cannot be read, or stdout cannot be written.
pub fn diff(store: &Store, id: &ContainerId, format: Format, place: Place) -> Result<()> {
    let differences = diff::diff(store, id, place)?;
    print(&match format {
        Format::Table => differences.iter().map(line).collect(),
        Format::Json => compact(&differences.iter().map(document).collect::<Vec<_>>()) + "\n",
    })
}

/// Returns the name on one line: control characters are escaped.
fn line(difference: &Difference) -> String {
    let letter = match difference.kind {
        Kind::Added => 'A',
        Kind::Changed => 'C',
        Kind::Deleted => 'D',
    };
    format!("{letter} /{}\n", shown(&difference.path))
}

#[derive(Serialize)]
struct Document {
    kind: &'static str,
    /// Path. Bytes that are not UTF-8 are replaced.
    path: String,
    #[serde(flatten)]
    now: Option<Now>,
}

#[derive(Serialize)]
struct Now {
    r#type: &'static str,
    /// Mode, in octal.
    mode: String,
    uid: u32,
    gid: u32,
    /// Size in bytes.
    size: u64,
    /// Modification time in seconds since 1970.
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Major and minor number of a device node.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<String>,
}

fn document(difference: &Difference) -> Document {
    Document {
        kind: match difference.kind {
            Kind::Added => "added",
            Kind::Changed => "changed",
            Kind::Deleted => "deleted",
        },
        path: format!("/{}", String::from_utf8_lossy(&difference.path)),
        now: difference.entry.as_ref().map(now),
    }
}

fn now(entry: &Entry) -> Now {
    let (target, device) = match &entry.form {
        Form::Symlink(target) => (Some(String::from_utf8_lossy(target).into_owned()), None),
        Form::Character(device) | Form::Block(device) => {
            (None, Some([libc::major(*device), libc::minor(*device)]))
        }
        _ => (None, None),
    };
    Now {
        r#type: match entry.form {
            Form::File | Form::Hardlink(_) => "file",
            Form::Symlink(_) => "symlink",
            Form::Character(_) => "character",
            Form::Block(_) => "block",
            Form::Directory => "directory",
            Form::Fifo => "fifo",
            Form::Socket => "socket",
        },
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: format!("{}.{:09}", entry.mtime.0, entry.mtime.1),
        target,
        device,
        xattrs: entry.xattrs.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_and_a_document() {
        let entry = Entry {
            form: Form::Symlink(b"to".to_vec()),
            mode: 0o777,
            uid: 1,
            gid: 2,
            size: 0,
            mtime: (3, 4),
            xattrs: Vec::new(),
        };
        let path = b"a\nb\xff".to_vec();
        let added = Difference { kind: Kind::Added, path, entry: Some(entry) };
        assert_eq!(line(&added), "A /a\\nb\\xff\n");
        assert_eq!(
            compact(&document(&added)),
            "{\"kind\":\"added\",\"path\":\"/a\\nb\u{fffd}\",\"type\":\"symlink\",\"mode\":\"0777\",\
             \"uid\":1,\"gid\":2,\"size\":0,\"mtime\":\"3.000000004\",\"target\":\"to\"}"
        );
        let gone = Difference { kind: Kind::Deleted, path: b"x".to_vec(), entry: None };
        assert_eq!(compact(&document(&gone)), "{\"kind\":\"deleted\",\"path\":\"/x\"}");
    }
}
