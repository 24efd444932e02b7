//! `aril volume`: lists, creates, inspects and removes named volumes.

use serde::Serialize;

use super::command::Format;
use super::given::usage;
use super::output::{aligned, compact, indented};
use crate::error::Result;
use crate::time::rfc3339;
use crate::volume::{Volume, Volumes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Create,
    Remove,
    Inspect,
}

/// Reads the operands: the action, then names.
fn action(word: &str, names: usize) -> Result<Action> {
    let (action, fine) = match word {
        "ls" | "list" => (Action::List, names == 0),
        "create" => (Action::Create, names > 0),
        "rm" | "remove" => (Action::Remove, names > 0),
        "inspect" => (Action::Inspect, names > 0),
        other => {
            return Err(usage(format!("unknown action {other:?} of volume"))
                .hint("the actions are ls, create, rm and inspect"));
        }
    };
    let wants = if action == Action::List { "no name" } else { "at least one name" };
    if fine { Ok(action) } else { Err(usage(format!("aril volume {word} needs {wants}"))) }
}

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    path: String,
    created: Option<String>,
    users: &'a [String],
}

impl<'a> From<&'a Volume> for View<'a> {
    fn from(volume: &'a Volume) -> Self {
        Self {
            name: &volume.name,
            path: volume.path.display().to_string(),
            created: volume.created.map(rfc3339),
            users: &volume.users,
        }
    }
}

/// Runs the action and returns the output. Names before one that fails are done.
///
/// # Errors
///
/// An action fails.
pub fn act(words: &[String], format: Format) -> Result<String> {
    let (word, names) = words
        .split_first()
        .ok_or_else(|| usage("aril volume needs an action: ls, create, rm or inspect"))?;
    let action = action(word, names.len())?;
    let volumes = Volumes::of_the_caller()?;
    match action {
        Action::List => {
            let all = volumes.list()?;
            Ok(match format {
                Format::Json => compact(&views(&all)) + "\n",
                Format::Table => table(&all),
            })
        }
        Action::Inspect => {
            let found = names.iter().map(|name| volumes.find(name)).collect::<Result<Vec<_>>>()?;
            Ok(indented(&views(&found), "  ") + "\n")
        }
        Action::Create => each(names, |name| volumes.create(name)),
        Action::Remove => each(names, |name| volumes.remove(name)),
    }
}

fn each(names: &[String], done: impl Fn(&str) -> Result<()>) -> Result<String> {
    names.iter().try_for_each(|name| done(name))?;
    Ok(names.iter().map(|name| format!("{name}\n")).collect())
}

fn views(volumes: &[Volume]) -> Vec<View<'_>> {
    volumes.iter().map(View::from).collect()
}

fn table(volumes: &[Volume]) -> String {
    let mut rows = vec![["NAME", "CREATED", "USED BY", "PATH"].map(str::to_owned)];
    rows.extend(volumes.iter().map(|volume| {
        let users = volume.users.join(",");
        [
            volume.name.clone(),
            volume.created.map_or("-".to_owned(), rfc3339),
            if users.is_empty() { "-".to_owned() } else { users },
            volume.path.display().to_string(),
        ]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions() {
        assert_eq!(action("ls", 0).unwrap(), Action::List);
        assert_eq!(action("rm", 2).unwrap(), Action::Remove);
        for (word, names) in [("ls", 1), ("rm", 0), ("create", 0), ("inspect", 0), ("fill", 1)] {
            assert!(action(word, names).is_err(), "{word}");
        }
    }
}
