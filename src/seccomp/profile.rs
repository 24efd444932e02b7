//! Decides the action for each system call number of an architecture.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as SpecAction, LinuxSeccompArg, LinuxSyscall,
};

use super::bpf::{Decision, Ranges};
use super::clause::{ARGUMENTS, Clause, Condition};
use super::syscalls::{Finder, Multiplexed, Syscall};
use super::{Action, Arch};
use crate::error::{Error, Result};

/// Rules of a profile, independent of the architecture.
pub struct Profile<'a> {
    pub default: Action,
    clauses: Vec<Clause>,
    uses: Vec<Use>,
    unknown: BTreeSet<&'a str>,
}

/// Known system call of a rule. There is one entry for each of the rule's clauses, which are alternatives. If the rule
/// has the default action, one entry without a clause marks the name as known.
struct Use {
    syscall: &'static Syscall,
    clause: Option<usize>,
}

impl<'a> Profile<'a> {
    /// Reads the rules of a profile.
    ///
    /// # Errors
    ///
    /// A rule has an empty name, an error number without an action that uses it, or a condition on an argument above 5.
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

    /// Returns the unknown names, separated by spaces.
    pub fn unknown(&self) -> Option<String> {
        let names = || self.unknown.iter().copied().collect::<Vec<_>>().join(" ");
        (!self.unknown.is_empty()).then(names)
    }

    /// Decides the action for each number of `arch`.
    ///
    /// # Errors
    ///
    /// Rules with the same conditions have different actions.
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

    /// Decides for a number as libseccomp does. `uses` are all its uses in the order of the profile.
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

/// Use of a system call, with a number that it applies to.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Numbered {
    number: u32,
    /// Index of the use.
    order: usize,
    /// Value of the first argument with which the number stands for the system call (`socketcall`, `ipc`).
    via: Option<u8>,
}

impl Clause {
    fn on(&self, arch: Arch, via: Option<u8>) -> Self {
        let mut clause = self.narrow(arch.width());
        if let Some(value) = via {
            // The arguments of the call are in memory, which filters cannot read. libseccomp replaces the condition on
            // the first argument, and compares the others with the registers, whatever these contain.
            clause.conditions.retain(|c| c.index() != 0);
            clause.conditions.insert(0, Condition::equals(0, value.into()));
        }
        clause
    }
}

/// Decisions for the numbers of an architecture, beginning with its first number.
pub struct Table {
    arch: Arch,
    /// Number of system calls that rules decide.
    pub decided: usize,
    ranges: Ranges,
    default: Action,
    /// Action for numbers above the highest one that the profile names.
    beyond: Action,
}

impl Table {
    /// Adds the default action for numbers that the profile does not name.
    fn fill(&mut self, from: u32, to: u32) {
        if from < to {
            self.ranges.push(from, Decision::Always(self.default));
        }
    }
}

/// Converts an action. `field` is the name of the field with `errno`.
fn action(field: &str, action: SpecAction, errno: Option<u32>) -> Result<Action> {
    // Encoders that do not omit the field write 0.
    if errno.is_some_and(|errno| errno != 0) && !Action::takes_errno(action) {
        return Err(Error::config(format!("seccomp {field} is set for {action}, which has none"))
            .hint("remove the field; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have one"));
    }
    Ok(Action::from_spec(action, errno))
}

/// Returns the clauses of a rule: one with all conditions, or one per condition if two conditions are on the same
/// argument.
///
/// # Errors
///
/// A condition is on an argument above 5, or the error number belongs to an action that does not use it.
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
        // Clauses are in the order of the profile.
        args.iter()
            .map(|arg| Clause { conditions: vec![Condition::from_spec(arg)], action })
            .collect()
    } else {
        vec![Clause { conditions, action }]
    })
}

/// Returns `AUDIT_ARCH_*` and the decisions for all its numbers, in the order of the tables.
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

/// Combines the decisions for x86_64 and x32, which have the same `AUDIT_ARCH_*` and differ in one bit of the number.
///
/// Numbers with the highest bit set exist on neither and count as above all others. If only x86_64 is filtered,
/// libseccomp treats them as numbers of x32. A tracer writes -1 to skip a call, which gets the default action.
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
