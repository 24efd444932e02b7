//! Text of a plan: one line per decision, in the order of execution.

use std::fmt;

use super::ContainerPlan;
use super::effect::Stage;
use crate::hook::Point;

impl fmt::Display for ContainerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container {}", self.id)?;
        writeln!(f, "bundle {}", self.bundle.display())?;
        writeln!(f, "rootfs {}", self.rootfs.display())?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        writeln!(f, "\nhost:")?;
        self.host(f)?;
        writeln!(f, "\ncontainer process:")?;
        let (preparation, confinement) = self.script.preparation_and_confinement();
        for step in preparation {
            writeln!(f, "  {step}")?;
        }
        let waits = "  ready; wait for start";
        if !self.script.notifies() {
            writeln!(f, "{waits}")?;
        }
        if self.script.landlock().is_some() {
            writeln!(f, "  enforce landlock")?;
        }
        for step in confinement {
            writeln!(f, "  {step}")?;
        }
        if self.script.notifies() {
            writeln!(f, "{waits}")?;
        }
        for hook in self.script.hooks.at(Point::StartContainer) {
            writeln!(f, "  startContainer hook {hook}")?;
        }
        let argv: Vec<_> =
            self.script.program.argv.iter().map(|a| format!("{:?}", a.to_string_lossy())).collect();
        let init = if self.script.program.under_init { "aril-init, and as its child " } else { "" };
        writeln!(f, "  execute {init}{}", argv.join(" "))
    }
}

impl ContainerPlan {
    fn host(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effects = |f: &mut fmt::Formatter<'_>, stages: &[Stage]| {
            let chosen = self.effects().filter(|effect| stages.contains(&effect.stage()));
            chosen
                .flat_map(|effect| {
                    effect.to_string().lines().map(str::to_owned).collect::<Vec<_>>()
                })
                .try_for_each(|line| writeln!(f, "  {line}"))
        };
        effects(f, &[Stage::Intent, Stage::Host])?;
        for join in &self.namespaces.joined_before_clone {
            let actor = if self.namespaces.relay { "by the relay" } else { "for the child" };
            writeln!(
                f,
                "  join {} namespace {} {actor}",
                join.kind.oci(),
                join.path.to_string_lossy()
            )?;
        }
        let new: Vec<_> =
            self.namespaces.kinds().filter(|(_, new)| *new).map(|(k, _)| k.oci()).collect();
        writeln!(
            f,
            "  clone with new namespaces: {}",
            if new.is_empty() { "none".into() } else { new.join(" ") }
        )?;
        if let Some(maps) = &self.namespaces.new_maps {
            for (kind, map) in [("uid", &maps.uid), ("gid", &maps.gid)] {
                for m in map {
                    writeln!(
                        f,
                        "  map {kind} {} to host {} ({} ids)",
                        m.container, m.host, m.size
                    )?;
                }
            }
        }
        effects(f, &[Stage::Held, Stage::Process])?;
        for point in [Point::Prestart, Point::CreateRuntime, Point::CreateContainer] {
            for hook in self.script.hooks.at(point) {
                writeln!(f, "  {point} hook {hook}")?;
            }
        }
        Ok(())
    }
}
