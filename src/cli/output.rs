//! Documents and tables that verbs print, and that engines parse.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;

use serde::Serialize;

use crate::error::{OsContext, Result};

/// Container in the output of `state` and `list`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateView {
    /// Version of the specification that the runtime implements, not the config's.
    pub oci_version: String,
    pub id: String,
    /// Process ID of init; 0 without a process.
    pub pid: i32,
    pub status: String,
    pub bundle: String,
    pub rootfs: String,
    /// Time of creation: see [`crate::time::rfc3339`].
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Owner of the state directory in `list`, empty in `state`.
    pub owner: String,
    /// End of the container, if Aril waited for it.
    #[serde(flatten)]
    pub exit: Option<ExitView>,
    /// True if the process that waited for the container was killed.
    #[serde(skip)]
    pub exit_lost: bool,
}

/// End of a container.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitView {
    /// Exit status; 128 + N for signal N.
    pub exit_status: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<i32>,
    pub oom_killed: bool,
    pub started: String,
    pub finished: String,
}

impl StateView {
    /// Text of the end for tables.
    fn status(&self) -> String {
        let status = &self.status;
        match &self.exit {
            Some(ExitView {
                exit_status,
                exit_signal: Some(libc::SIGKILL),
                oom_killed: true,
                ..
            }) => {
                format!("{status} (exit {exit_status}, out of memory)")
            }
            Some(ExitView { exit_status, .. }) => format!("{status} (exit {exit_status})"),
            None if self.exit_lost => format!("{status} (exit status not known)"),
            None => status.clone(),
        }
    }
}

/// Prints to stdout.
///
/// # Errors
///
/// write(2) failed, also with EPIPE if the reader has ended.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).os("write", "stdout")
}

/// Returns the JSON of `state`.
pub fn state(view: &StateView) -> String {
    indented(view, "  ")
}

/// Returns the JSON of `list`. An empty list is `null`, as Go prints it.
pub fn list_json(views: &[StateView]) -> String {
    let mut text = if views.is_empty() { "null".to_owned() } else { compact(&views) };
    text.push('\n');
    text
}

pub fn list_ids(views: &[StateView]) -> String {
    views.iter().map(|view| format!("{}\n", view.id)).collect()
}

pub fn list_table(views: &[StateView]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |view: &StateView| {
        let StateView { id, pid, bundle, created, owner, .. } = view.clone();
        [id, pid.to_string(), view.status(), bundle, created, owner]
    };
    aligned(&std::iter::once(head).chain(views.iter().map(row)).collect::<Vec<_>>())
}

/// Formats a table as Go's tabwriter does for `list`: cells at least 12 wide, 3 spaces between, no padding at the end.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max();
        widest.map_or(0, |widest| widest + 3).max(12)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths).take(N - 1) {
            _ = write!(text, "{cell:width$}");
        }
        text.push_str(&row[N - 1]);
        text.push('\n');
    }
    text
}

/// User names by id, read once from `/etc/passwd`: a static binary has no NSS.
pub struct Users(HashMap<u32, String>);

impl Users {
    pub fn of_this_host() -> Self {
        Self::parse(&std::fs::read("/etc/passwd").unwrap_or_default())
    }

    fn parse(passwd: &[u8]) -> Self {
        let mut users = HashMap::new();
        for line in String::from_utf8_lossy(passwd).lines() {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok()));
            if let (Some(name), Some(uid)) = (name, uid) {
                users.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(users)
    }

    pub fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| format!("#{uid}"))
    }
}

/// Formats JSON as Go's `MarshalIndent` does, without a newline at the end.
pub fn indented(document: &impl Serialize, indent: &str) -> String {
    let mut json = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, formatter);
    document.serialize(&mut serializer).expect(PLAIN);
    String::from_utf8(json).expect("JSON is UTF-8")
}

pub fn compact(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect(PLAIN)
}

const PLAIN: &str = "documents here have string keys, and memory takes every byte";

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, bundle: &str) -> StateView {
        StateView {
            oci_version: "1.3.0".into(),
            id: id.into(),
            pid: 42,
            status: "running".into(),
            bundle: bundle.into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-02T03:04:05.6Z".into(),
            annotations: BTreeMap::new(),
            owner: String::new(),
            exit: None,
            exit_lost: false,
        }
    }

    #[test]
    fn the_state_document() {
        let text = "{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": \"x\",\n  \"pid\": 42,\n  \
            \"status\": \"running\",\n  \"bundle\": \"/b\",\n  \"rootfs\": \"/b/rootfs\",\n  \
            \"created\": \"2026-01-02T03:04:05.6Z\",\n  \"owner\": \"\"\n}";
        assert_eq!(state(&view("x", "/b")), text);
    }

    #[test]
    fn annotations_are_shown_when_there_are_any() {
        let mut with = view("x", "/b");
        with.annotations.insert("a".into(), "b".into());
        let document: serde_json::Value = serde_json::from_str(&state(&with)).unwrap();
        assert_eq!(document["annotations"], serde_json::json!({"a": "b"}));
    }

    #[test]
    fn an_empty_table_is_its_head() {
        let head = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(list_table(&[]), head);
    }

    #[test]
    fn long_cells_widen_their_column() {
        let mut one = view("a-name-of-17-char", "/b");
        one.owner = "root".into();
        let mut other = view("é", "/b");
        other.owner = "#7".into();
        let table = list_table(&[one, other]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[0],
            "ID                  PID         STATUS      BUNDLE      CREATED                  OWNER"
        );
        assert_eq!(
            lines[1],
            "a-name-of-17-char   42          running     /b          2026-01-02T03:04:05.6Z   root"
        );
        assert_eq!(
            lines[2],
            "é                   42          running     /b          2026-01-02T03:04:05.6Z   #7"
        );
    }

    #[test]
    fn how_a_container_ended() {
        let exit = |exit_status, exit_signal, oom_killed| StateView {
            status: "stopped".into(),
            exit: Some(ExitView {
                exit_status,
                exit_signal,
                oom_killed,
                started: "s".into(),
                finished: "f".into(),
            }),
            ..view("x", "/b")
        };
        assert_eq!(exit(3, None, false).status(), "stopped (exit 3)");
        assert_eq!(exit(143, Some(15), false).status(), "stopped (exit 143)");
        assert_eq!(exit(137, Some(9), true).status(), "stopped (exit 137, out of memory)");
        // A child of init's was killed, and init went on.
        assert_eq!(exit(0, None, true).status(), "stopped (exit 0)");
        let lost = StateView { status: "stopped".into(), exit_lost: true, ..view("x", "/b") };
        assert_eq!(lost.status(), "stopped (exit status not known)");
        let text = state(&exit(137, Some(9), true));
        let end = "\"owner\": \"\",\n  \"exitStatus\": 137,\n  \"exitSignal\": 9,\n  \
            \"oomKilled\": true,\n  \"started\": \"s\",\n  \"finished\": \"f\"\n}";
        assert!(text.ends_with(end), "{text}");
        assert!(list_table(&[lost]).contains("stopped (exit status not known)   /b"));
    }

    #[test]
    fn lists() {
        assert_eq!(list_json(&[]), "null\n");
        let two = [view("a", "/b"), view("b", "/b")];
        assert_eq!(list_ids(&two), "a\nb\n");
        let json = list_json(&two);
        assert_eq!(json.matches('\n').count(), 1);
        let ids: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(ids[1]["id"], "b");
    }

    #[test]
    fn owners() {
        let users = Users::parse(b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\n\nbad\nu\xff:x:7:\n");
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(7), "u\u{fffd}");
        assert_eq!(users.name(8), "#8");
    }
}
