//! Output of `reconcile`: a line for each finding, or all of them as JSON.

use super::command::Format;
use super::output::{compact, print};
use crate::error::{Error, Result};
use crate::lifecycle::reconcile::{self, Action, Finding};
use crate::state::Store;

/// Finds leftovers, removes them unless `dry_run` is set, and prints each.
///
/// # Errors
///
/// A search or a removal fails; the others continue.
pub fn reconcile(store: &Store, dry_run: bool, format: Format) -> Result<()> {
    let (mut findings, mut printed) = (Vec::new(), Ok(()));
    let done = reconcile::reconcile(store, dry_run, &mut |finding| {
        if format == Format::Table && printed.is_ok() {
            printed = print(&line(&finding));
        }
        findings.push(finding);
    });
    if format == Format::Json {
        printed = print(&(compact(&findings) + "\n"));
    }
    done.and(printed)?;
    match findings.iter().filter(|finding| finding.action == Action::Failed).count() {
        0 => Ok(()),
        many => Err(Error::system(format!("{many} of {} could not be removed", findings.len()))),
    }
}

fn line(finding: &Finding) -> String {
    let Finding { kind, name, why, action, error } = finding;
    let action = match action {
        Action::Removed => "removed",
        Action::WouldRemove => "would remove",
        Action::Kept => "kept",
        Action::Failed => "failed to remove",
    };
    let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{action} {kind} {name}: {why}{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let finding = |action, error: Option<&str>| Finding {
            kind: "container",
            name: "c1".into(),
            why: "its create was killed".into(),
            action,
            error: error.map(str::to_owned),
        };
        let text = line(&finding(Action::Failed, Some("rmdir x: device or resource busy")));
        let expected = "failed to remove container c1: its create was killed: rmdir x: device or \
                        resource busy\n";
        assert_eq!(text, expected);
        let json = compact(&[finding(Action::WouldRemove, None)]);
        assert_eq!(
            json,
            r#"[{"kind":"container","name":"c1","why":"its create was killed","action":"would-remove"}]"#
        );
    }
}
