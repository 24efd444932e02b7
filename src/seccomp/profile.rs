//! What a profile decides for each number of an architecture.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as SpecAction, LinuxSeccompArg, LinuxSyscall,
};

use super::bpf::{Decision, Ranges};
use super::clause::{ARGUMENTS, Clause, Condition};
use super::syscalls::{Finder, Multiplexed, Syscall};
use super::{Action, Arch};
use crate::error::{Error, Result};

/// The rules, before an architecture is chosen.
pub struct Profile<'a> {
    pub default: Action,
    clauses: Vec<Clause>,
    uses: Vec<Use>,
    unknown: BTreeSet<&'a str>,
}

/// A known name in a rule, once for each of the rule's clauses, which are alternatives; without one
/// where the rule changes nothing.
struct Use {
    syscall: &'static Syscall,
    clause: Option<usize>,
}

impl<'a> Profile<'a> {
    pub fn read(spec: &'a LinuxSeccomp) -> Result<Self> {
        let default = action("defaultErrnoRet", spec.default_action(), spec.default_errno_ret())?;
        let mut profile = Self {
            default,
            clauses: Vec::new(),
            uses: Vec::with_capacity(512),
            unknown: BTreeSet::new(),
        };
        for rule in spec.syscalls().iter().flatten() {
            profile.add(rule)?;
        }
        Ok(profile)
    }

    fn add(&mut self, rule: &'a LinuxSyscall) -> Result<()> {
        let first = self.clauses.len();
        self.clauses.extend(clauses(rule)?.into_iter().filter(|c| c.action != self.default));
        let mut finder = Finder::default();
        for name in rule.names() {
            let Some(syscall) = finder.find(name) else {
                if name.is_empty() {
                    return Err(Error::config("empty string is not a valid syscall"));
                }
                self.unknown.insert(name);
                continue;
            };
            if first == self.clauses.len() {
                self.uses.push(Use { syscall, clause: None });
            }
            let clauses = first..self.clauses.len();
            self.uses.extend(clauses.map(|clause| Use { syscall, clause: Some(clause) }));
        }
        Ok(())
    }

    /// Their names, with spaces between.
    pub fn unknown(&self) -> Option<String> {
        let names = || self.unknown.iter().copied().collect::<Vec<_>>().join(" ");
        (!self.unknown.is_empty()).then(names)
    }

    pub fn table(&self, arch: Arch) -> Result<Table> {
        let mut numbered = Vec::with_capacity(self.uses.len());
        let mut last = None;
        for (order, Use { syscall, clause }) in self.uses.iter().enumerate() {
            if let Some(number) = syscall.number(arch) {
                last = last.max(Some(number));
                if clause.is_some() {
                    numbered.push(Numbered { number, order, via: None });
                }
            }
            if arch == Arch::X86
                && clause.is_some()
                && let Some(Multiplexed { number, first_argument }) =
                    Multiplexed::find(syscall.name)
            {
                last = last.max(Some(number));
                numbered.push(Numbered { number, order, via: Some(first_argument) });
            }
        }
        numbered.sort_unstable();

        let beyond = match last {
            Some(_) if !self.default.is_permissive() => Action::ENOSYS,
            _ => self.default,
        };
        let mut table =
            Table { arch, decided: 0, ranges: Ranges::default(), default: self.default, beyond };
        let mut next = arch.first_number();
        for same in numbered.chunk_by(|a, b| a.number == b.number) {
            let number = same[0].number;
            table.fill(next, number);
            table.ranges.push(number, self.decide(same, arch)?);
            table.decided += 1;
            next = number + 1;
        }
        let end = last.map_or(next, |last| last + 1);
        table.fill(next, end);
        table.ranges.push(end, Decision::Always(beyond));
        Ok(table)
    }

    /// What libseccomp decides for a number, given all its uses in the profile's order.
    fn decide(&self, uses: &[Numbered], arch: Arch) -> Result<Decision> {
        let mut clauses: Vec<Clause> = Vec::new();
        for Numbered { order, via, .. } in uses {
            let Use { syscall, clause } = &self.uses[*order];
            let Some(clause) = clause.map(|i| &self.clauses[i]) else { continue };
            let clause = clause.on(arch, *via);
            if clause.conditions.is_empty() {
                return Ok(Decision::Always(clause.action));
            }
            match clauses.iter().find(|c| c.conditions == clause.conditions) {
                None => clauses.push(clause),
                Some(same) if same.action == clause.action => {}
                Some(same) => {
                    return Err(Error::config(format!(
                        "error adding seccomp filter rule for syscall {}: rules with the same \
                         conditions have different actions, {} and {}",
                        syscall.name, same.action, clause.action
                    )));
                }
            }
        }
        clauses.sort_by(Clause::precedence);
        Ok(Decision::ByArguments { clauses, width: arch.width(), otherwise: self.default })
    }
}

/// A use and a number it applies to.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    number: u32,
    /// The use's index.
    order: usize,
    /// The value that the first argument must have for the number to stand for the name.
    via: Option<u8>,
}

impl Clause {
    fn on(&self, arch: Arch, via: Option<u8>) -> Self {
        let mut clause = self.narrow(arch.width());
        if let Some(value) = via {
            // The arguments proper are in memory, where no filter can see them. libseccomp replaces
            // the first and compares the others with what happens to be in the registers.
            clause.conditions.retain(|c| c.index() != 0);
            clause.conditions.insert(0, Condition::equals(0, value.into()));
        }
        clause
    }
}

/// The decisions for an architecture's numbers, from its first one up.
pub struct Table {
    arch: Arch,
    /// How many numbers rules decide.
    pub decided: usize,
    ranges: Ranges,
    default: Action,
    /// For what the profile does not know.
    beyond: Action,
}

impl Table {
    /// Numbers that the profile passes over.
    fn fill(&mut self, from: u32, to: u32) {
        if from < to {
            self.ranges.push(from, Decision::Always(self.default));
        }
    }
}

/// `field` is that of `errno`.
fn action(field: &str, action: SpecAction, errno: Option<u32>) -> Result<Action> {
    // 0 is what encoders write that do not leave it out.
    if errno.is_some_and(|errno| errno != 0) && !Action::takes_errno(action) {
        return Err(Error::config(format!("seccomp {field} is set for {action}, which has none"))
            .hint("SCMP_ACT_ERRNO and SCMP_ACT_TRACE have one"));
    }
    Ok(Action::from_spec(action, errno))
}

/// The clauses of a rule: one with all its conditions, or, where two of these are on the same
/// argument, one for each.
pub fn clauses(rule: &LinuxSyscall) -> Result<Vec<Clause>> {
    let action = action("errnoRet", rule.action(), rule.errno_ret())?;
    let args: &[LinuxSeccompArg] = rule.args().as_deref().unwrap_or_default();
    if let Some(arg) = args.iter().find(|a| a.index() >= ARGUMENTS) {
        return Err(Error::config(format!(
            "error creating seccomp syscall condition for syscall {}: syscalls have arguments 0 to \
             {}, not {}",
            rule.names().join(" "),
            ARGUMENTS - 1,
            arg.index()
        )));
    }
    let mut conditions: Vec<_> = args.iter().map(Condition::from_spec).collect();
    conditions.sort_by_key(Condition::index);
    let repeated = conditions.windows(2).any(|pair| pair[0].index() == pair[1].index());
    Ok(if repeated {
        // In the profile's order.
        args.iter()
            .map(|arg| Clause { conditions: vec![Condition::from_spec(arg)], action })
            .collect()
    } else {
        vec![Clause { conditions, action }]
    })
}

/// `AUDIT_ARCH_*` and the decisions for all its numbers, in the order of the tables.
pub fn branches(tables: Vec<Table>) -> Vec<(u32, Ranges)> {
    let mut branches = Vec::with_capacity(tables.len());
    let shared = tables.iter().position(|t| t.arch.audit() == Arch::X86_64.audit());
    let (mut x86_64, mut x32) = (None, None);
    for table in tables {
        match table.arch {
            Arch::X86_64 => x86_64 = Some(table),
            Arch::X32 => x32 = Some(table),
            arch => branches.push((arch.audit(), table.ranges)),
        }
    }
    if let Some(position) = shared {
        branches.insert(position, (Arch::X86_64.audit(), both_x86_64(x86_64, x32)));
    }
    branches
}

/// One bit of the number tells the two apart. Numbers with the highest bit set exist on neither and
/// are beyond all; where only x86_64 is filtered, libseccomp takes them for x32's. -1 is what a
/// tracer writes to skip a call, and is left to the default.
fn both_x86_64(x86_64: Option<Table>, x32: Option<Table>) -> Ranges {
    const HIGHEST_BIT: u32 = 1 << 31;
    let beyond = |table: &Option<Table>| table.as_ref().map_or(Action::KILL_THREAD, |t| t.beyond);
    let high = match beyond(&x86_64) {
        permissive if x32.is_none() && permissive.is_permissive() => Action::KILL_THREAD,
        beyond => beyond,
    };
    let high = [(HIGHEST_BIT, high), (HIGHEST_BIT | Arch::X32_BIT, beyond(&x32))];
    let skip = x86_64.as_ref().filter(|_| x32.is_none()).map(|t| (u32::MAX, t.default));

    let mut ranges = Ranges::default();
    for (table, first) in [(x86_64, 0), (x32, Arch::X32_BIT)] {
        match table {
            Some(table) => ranges.append(table.ranges),
            None => ranges.push(first, Decision::Always(Action::KILL_THREAD)),
        }
    }
    for (first, action) in high.into_iter().chain(skip) {
        ranges.push(first, Decision::Always(action));
    }
    ranges
}
