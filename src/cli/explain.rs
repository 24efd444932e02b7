//! Output of `explain`: a line for each finding, or JSON.

use std::path::Path;

use super::command::Format;
use super::output::{self, compact};
use crate::error::Result;
use crate::explain::{self, Explanation, Facts};
use crate::lifecycle::prepare::Settled;
use crate::{identity, landlock};

/// Prints the findings.
///
/// # Errors
///
/// The grant contains an invalid value, or stdout cannot be written.
pub fn print(bundle: &Path, settled: &Settled, format: Format) -> Result<()> {
    let facts = Facts {
        rootless: !nix::unistd::geteuid().is_root(),
        apparmor: identity::parent::apparmor_enabled(),
        selinux: identity::parent::selinux_enabled(),
        landlock: landlock::parent::version().ok(),
    };
    let explanation = explain::explain(&settled.config.spec, &settled.grant, &facts)?;
    output::print(&match format {
        Format::Json => compact(&explanation) + "\n",
        Format::Table => table(bundle, &explanation),
    })
}

fn table(bundle: &Path, explanation: &Explanation) -> String {
    let Explanation { grade, findings } = explanation;
    let mut text = format!("{}: {}: {}\n\n", bundle.display(), grade.word(), grade.meaning());
    for finding in findings {
        let (grade, topic) = (finding.grade.word(), finding.topic);
        text += &format!("{grade:<6} {topic:<15} {}\n", finding.text);
    }
    text
}
