//! Decides which annotations of a config.json take effect, and what a container is granted beyond the specification.
//!
//! The operator decides with options of the command line (also that of an engine that calls Aril) and with a
//! configuration file that no other user can write. Only `cli` and `shim`, which the operator calls, create a
//! [`Policy`]; `runtime-tests/tests/tidy.rs` checks it. All other code acts on an [`OperatorGrant`], which comes from
//! [`Policy::admit`] or from the record of a container in the state root. `docs/security.md` has the trust table that
//! this module implements.

pub mod file;

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::annotation::{self, Class};
use super::extensions::Extensions;
use crate::error::{Error, Kind, Result};
use file::ConfigFile;

/// Pattern for annotations: a key, or a prefix that ends with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    prefix: bool,
}

/// Rules for annotations from options of the command line and directives of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    strict: bool,
}

/// Operator's decision on annotations.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Rules,
    /// Lists the configuration files. They are read only if an annotation depends on them.
    files: Option<fn() -> Vec<ConfigFile>>,
}

/// Extensions that the operator grants to a container: options of the command line, and allowed annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperatorGrant(Extensions);

impl Deref for OperatorGrant {
    type Target = Extensions;

    fn deref(&self) -> &Extensions {
        &self.0
    }
}

/// Grant of a container, and warnings about annotations without effect.
#[derive(Debug, Default)]
pub struct Admitted {
    pub grant: OperatorGrant,
    pub warnings: Vec<String>,
}

impl Rules {
    /// Adds the pattern of `--allow-annotation`.
    ///
    /// # Errors
    ///
    /// No annotation of Aril matches the pattern.
    pub fn allow(&mut self, text: &str) -> Result<()> {
        self.allow.push(Pattern::parse(text)?);
        Ok(())
    }

    /// Adds the pattern of `--deny-annotation`, for annotations that take effect unless they are denied.
    ///
    /// # Errors
    ///
    /// No annotation of Aril matches the pattern.
    pub fn deny(&mut self, text: &str) -> Result<()> {
        self.deny.push(Pattern::parse(text)?);
        Ok(())
    }

    /// Turns warnings about ignored annotations into errors (`--strict-annotations`).
    pub fn be_strict(&mut self) {
        self.strict = true;
    }

    fn extend(&mut self, other: Self) {
        self.allow.extend(other.allow);
        self.deny.extend(other.deny);
        self.strict |= other.strict;
    }

    fn verdict(&self, key: &str, class: Class) -> Verdict {
        let matched = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(key));
        let named = || self.allow.iter().any(|p| !p.prefix && p.text == key);
        match class {
            Class::Unknown => Verdict::Unknown,
            _ if matched(&self.deny) => Verdict::NotAllowed,
            Class::Harmless => Verdict::Acts,
            Class::Container if matched(&self.allow) => Verdict::Acts,
            Class::Host if named() => Verdict::Acts,
            Class::Host if matched(&self.allow) => Verdict::OnlyByPrefix,
            Class::Container | Class::Host => Verdict::NotAllowed,
        }
    }
}

/// Decision on one annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Acts,
    NotAllowed,
    /// The annotation needs its full key, and only a prefix is allowed.
    OnlyByPrefix,
    Unknown,
}

impl Verdict {
    fn why_not(self) -> &'static str {
        match self {
            Self::Acts => "",
            Self::NotAllowed => "the operator has not allowed it (--allow-annotation)",
            Self::OnlyByPrefix => {
                "it affects the host, so --allow-annotation must name its full key"
            }
            Self::Unknown => "Aril has no annotation of this name",
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let (key, prefix) = match text.strip_suffix('*') {
            Some(key) => (key, true),
            None => (text, false),
        };
        if key.contains('*') || key.is_empty() || !annotation::is_known(key, prefix) {
            let text = format!("invalid annotation {text:?}: Aril has no annotation that matches");
            return Err(Error::new(Kind::Usage, text).hint(
                "give a key such as io.aril.landlock, or a prefix such as io.aril.network.*",
            ));
        }
        Ok(Self { text: key.to_owned(), prefix })
    }

    fn matches(&self, key: &str) -> bool {
        if self.prefix { key.starts_with(&self.text) } else { key == self.text }
    }
}

impl Policy {
    pub fn new(rules: Rules, files: fn() -> Vec<ConfigFile>) -> Self {
        Self { rules, files: Some(files) }
    }

    /// Adds the allowed annotations to the options of the command line, which have priority.
    ///
    /// `systemd` is true if a systemd unit will be created, which can have properties.
    ///
    /// # Errors
    ///
    /// A configuration file is invalid, or writable by other users. With `--strict-annotations`, an annotation is not
    /// allowed.
    pub fn admit<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
        options: &Extensions,
        systemd: bool,
    ) -> Result<Admitted> {
        let mut extensions = options.clone();
        let mut found: Vec<_> = annotations
            .into_iter()
            .filter(|(key, _)| systemd || !key.starts_with(annotation::SYSTEMD))
            .filter_map(|(key, value)| Some((key, value, annotation::class(key, value)?)))
            .collect();
        if found.is_empty() {
            return Ok(Admitted { grant: OperatorGrant(extensions), warnings: Vec::new() });
        }
        found.sort_unstable_by_key(|(key, ..)| *key);
        let rules = self.complete()?;
        let mut ignored = Vec::new();
        for (key, value, class) in found {
            match rules.verdict(key, class) {
                Verdict::Acts => extensions.annotate(key, value),
                verdict => ignored.push((key.as_str(), verdict)),
            }
        }
        let warnings = warnings(&ignored);
        match warnings.first() {
            Some(first) if rules.strict => Err(Error::config(first.clone())
                .context("--strict-annotations")
                .hint("allow the annotation, or remove it from config.json")),
            _ => Ok(Admitted { grant: OperatorGrant(extensions), warnings }),
        }
    }

    /// Returns the rules with those of the configuration files.
    fn complete(&self) -> Result<Rules> {
        let mut rules = self.rules.clone();
        for file in self.files.iter().flat_map(|files| files()) {
            if let Some(more) = file.read()? {
                rules.extend(more);
            }
        }
        Ok(rules)
    }
}

/// Returns one warning per reason, of limited length: the author of the image decides about keys and their number.
fn warnings(ignored: &[(&str, Verdict)]) -> Vec<String> {
    const MOST_KEYS: usize = 16;
    const LONGEST_KEY: usize = 100;
    let of = |verdict: Verdict| {
        let keys: Vec<_> = ignored.iter().filter(|(_, v)| *v == verdict).map(|(k, _)| *k).collect();
        let shown = |key: &&str| key.chars().take(LONGEST_KEY).collect::<String>();
        let shown = keys.iter().take(MOST_KEYS).map(shown).collect::<Vec<_>>().join(", ");
        let more = keys.len().saturating_sub(MOST_KEYS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let noun = if keys.len() == 1 { "annotation" } else { "annotations" };
        let why = verdict.why_not();
        (!keys.is_empty()).then(|| format!("{noun} {shown}{more} ignored: {why}"))
    };
    [Verdict::NotAllowed, Verdict::OnlyByPrefix, Verdict::Unknown]
        .into_iter()
        .filter_map(of)
        .collect()
}

impl OperatorGrant {
    /// Returns the grant of a container with format 1 of the record, when every annotation of Aril had an effect. It
    /// contains the annotations that later commands act on.
    pub fn of_format_1(annotations: &BTreeMap<String, String>) -> Self {
        let mut extensions = Extensions::default();
        for key in [annotation::LANDLOCK, annotation::NETWORK] {
            if let Some(value) = annotations.get(key) {
                extensions.annotate(key, value);
            }
        }
        Self(extensions)
    }
}

#[cfg(any(test, fuzzing))]
impl OperatorGrant {
    /// Returns a grant for tests of code that acts on it.
    pub fn of(extensions: Extensions) -> Self {
        Self(extensions)
    }
}

#[cfg(test)]
mod tests;
