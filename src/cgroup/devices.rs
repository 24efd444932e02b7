//! Compiles device rules to the permissions of the device controller, as an eBPF program or as v1 lines.
//!
//! The rules are replayed on a model of the v1 controller, so that both versions permit the same accesses. The model
//! is a default and exceptions whose order does not matter. If the default denies, one exception must cover the whole
//! access; if it allows, no exception may match any part of it.
//!
//! ```text
//! linux.resources.devices --compile--> Filter --program--> eBPF program (cgroup2)
//!                                         `-----v1_lines--> devices.allow, devices.deny (v1)
//! ```

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::program;
use crate::error::{Error, Result};
use crate::sys::bpf::Insn;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

/// Major number; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Node {
    const fn new(kind: Kind, major: Option<u32>, minor: Option<u32>) -> Self {
        Self { kind, major, minor }
    }

    fn covers(&self, other: &Self) -> bool {
        let within = |a: Option<u32>, b| a.is_none() || a == b;
        self.kind == other.kind
            && within(self.major, other.major)
            && within(self.minor, other.minor)
    }

    fn meets(&self, other: &Self) -> bool {
        let common = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && common(self.major, other.major)
            && common(self.minor, other.minor)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} ")?;
        match self.major {
            Some(n) => write!(f, "{n}:")?,
            None => f.write_str("*:")?,
        }
        match self.minor {
            Some(n) => write!(f, "{n}"),
            None => f.write_str("*"),
        }
    }
}

struct Access(u8);

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            f.write_str(if self.0 & bit != 0 { letter } else { "" })?;
        }
        Ok(())
    }
}

/// Devices that every container may use, whatever its rules say: it may create any node, and open the standard ones.
const DEFAULTS: [(Node, u8); 11] = [
    (Node::new(Kind::Char, None, None), MKNOD),
    (Node::new(Kind::Block, None, None), MKNOD),
    (Node::new(Kind::Char, Some(1), Some(3)), ALL), // null
    (Node::new(Kind::Char, Some(1), Some(8)), ALL), // random
    (Node::new(Kind::Char, Some(1), Some(7)), ALL), // full
    (Node::new(Kind::Char, Some(5), Some(0)), ALL), // tty
    (Node::new(Kind::Char, Some(1), Some(5)), ALL), // zero
    (Node::new(Kind::Char, Some(1), Some(9)), ALL), // urandom
    (Node::new(Kind::Char, Some(136), None), ALL),  // pts
    (Node::new(Kind::Char, Some(5), Some(2)), ALL), // ptmx
    (Node::new(Kind::Char, Some(10), Some(200)), ALL), // net/tun
];

/// Permissions of the device controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    allow: bool,
    exceptions: BTreeMap<Node, u8>,
}

impl Filter {
    /// Applies the spec's rules in order, starting with nothing permitted; then the defaults.
    ///
    /// # Errors
    ///
    /// A rule has an unknown type, or a negative number other than -1.
    pub fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut filter = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            filter.replay(index, rule)?;
        }
        for (node, access) in DEFAULTS {
            // Fails only if everything is allowed: then a wider denial of the spec takes precedence.
            filter.apply(true, node, access).ok();
        }
        Ok(filter)
    }

    /// Returns true if nothing is forbidden, so no filter is needed.
    pub fn permits_all(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }

    /// Lists the exceptions to a default of denial, with their access; empty if the default allows.
    pub(super) fn permitted(&self) -> Option<Vec<(Node, String)>> {
        let permitted = |(node, access): (&Node, &u8)| (*node, Access(*access).to_string());
        (!self.allow).then(|| self.exceptions.iter().map(permitted).collect())
    }

    fn replay(&mut self, index: usize, rule: &LinuxDeviceCgroup) -> Result<()> {
        let access = access(index, rule.access().as_deref().unwrap_or(""))?;
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        // No device has this number, which is the kernel's own value for any number.
        let is_no_device = [major, minor].contains(&Some(u32::MAX));
        if access == 0 || is_no_device {
            return Ok(());
        }
        let kinds: &[Kind] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A if access == ALL && major.is_none() && minor.is_none() => {
                self.allow = rule.allow();
                self.exceptions.clear();
                return Ok(());
            }
            LinuxDeviceType::A => &[Kind::Block, Kind::Char],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C => &[Kind::Char],
            other => {
                let text = format!("invalid cgroup device type {:?}", other.as_str());
                return Err(Error::config(text));
            }
        };
        kinds
            .iter()
            .try_for_each(|kind| self.apply(rule.allow(), Node::new(*kind, major, minor), access))
    }

    fn apply(&mut self, allow: bool, node: Node, access: u8) -> Result<()> {
        if allow != self.allow {
            *self.exceptions.entry(node).or_default() |= access;
            return Ok(());
        }
        for (exception, held) in &mut self.exceptions {
            if node.covers(exception) {
                *held &= !access;
            } else if node.meets(exception) && *held & access != 0 {
                let verb = if allow { "allow" } else { "deny" };
                let text = format!(
                    "device rule \"{verb} {node} {}\" cuts a hole into the wider \"{exception} {}\" \
                     before it, which the device cgroup cannot express",
                    Access(access),
                    Access(*held)
                );
                return Err(Error::config(text));
            }
        }
        self.exceptions.retain(|_, held| *held != 0);
        Ok(())
    }

    /// Returns pairs of (file, lines) in the order in which they are written, for a cgroup without processes: the
    /// first line permits nothing, or everything.
    pub fn v1_lines(&self) -> [(&'static str, String); 2] {
        let (default, exception) = if self.allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let exceptions = self.exceptions.iter();
        let lines: Vec<String> =
            exceptions.map(|(node, access)| format!("{node} {}", Access(*access))).collect();
        [(default, "a".to_owned()), (exception, lines.join("\n"))]
    }

    /// eBPF program that the kernel runs at each open(2) and mknod(2) on cgroup v2.
    pub fn program(&self) -> Vec<Insn> {
        program::compile(self.allow, &self.exceptions)
    }
}

/// Formats the default, then each exception, for `aril plan`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (default, exception) = if self.allow { ("allow", "deny") } else { ("deny", "allow") };
        write!(f, "cgroup: devices: {default} all")?;
        for (node, access) in &self.exceptions {
            write!(f, ", {exception} {node} {}", Access(*access))?;
        }
        Ok(())
    }
}

fn access(index: usize, text: &str) -> Result<u8> {
    if text.is_empty() {
        let text = format!("device access at {index} field cannot be empty");
        return Err(Error::config(text));
    }
    Ok(letters(text))
}

/// Parses the letters of an access. Unknown letters are ignored, as by runc and crun.
fn letters(text: &str) -> u8 {
    text.chars().fold(0, |access, letter| match letter {
        'r' => access | READ,
        'w' => access | WRITE,
        'm' => access | MKNOD,
        _ => access,
    })
}

/// Parses a number. Engines write -1 for any number, too.
fn number(what: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::config(format!("invalid device {what} number {n}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(rules: serde_json::Value) -> Result<Filter> {
        Filter::compile(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(rules).unwrap())
    }

    /// Checks that every instruction is reachable and no jump leaves the program: the kernel's verifier rejects
    /// others.
    fn assert_all_reached(program: &[Insn]) {
        let mut reached = vec![false; program.len()];
        let mut paths = vec![0];
        while let Some(at) = paths.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            let Insn { code, offset, .. } = program[at];
            assert!(offset >= 0 || !matches!(code, 0x05 | 0x16 | 0x56));
            match code {
                0x95 => {}
                0x05 => paths.push(at + 1 + offset as usize),
                0x16 | 0x56 => paths.extend([at + 1, at + 1 + offset as usize]),
                _ => paths.push(at + 1),
            }
        }
        assert!(reached.iter().all(|r| *r), "{reached:?}");
    }

    #[test]
    fn the_verifier_reaches_every_instruction() {
        for rules in [
            json!([]),
            json!([{"allow": true, "access": "rwm"}]),
            json!([{"allow": true, "access": "rwm"},
                {"allow": false, "type": "c", "major": 8, "access": "rwm"}]),
            json!([{"allow": true, "type": "c", "access": "rwm"}]),
            json!([{"allow": true, "type": "b", "minor": 3, "access": "rwm"},
                {"allow": true, "type": "b", "major": 8, "access": "rwm"},
                {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"},
                {"allow": true, "type": "b", "major": 8, "minor": 2, "access": "rwm"}]),
        ] {
            assert_all_reached(&filter(rules).unwrap().program());
        }
    }

    /// Interprets the program as the kernel does.
    fn run(program: &[Insn], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let kind: u32 = if kind == Kind::Block { 1 } else { 2 };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut r = [0_u32; 6];
        let mut pc = 0;
        loop {
            let Insn { code, registers, offset, immediate } = program[pc];
            let (to, from) = (usize::from(registers & 0xf), usize::from(registers >> 4));
            let value = immediate as u32;
            pc += 1;
            match code {
                0x61 => r[to] = context[offset as usize / 4],
                0xbc => r[to] = r[from],
                0x54 => r[to] &= value,
                0x74 => r[to] >>= value,
                0x16 if r[to] == value => pc += offset as usize,
                0x56 if r[to] != value => pc += offset as usize,
                0x16 | 0x56 => {}
                0x05 => pc += offset as usize,
                0xb4 => r[to] = value,
                0x95 => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    impl Filter {
        fn permits(&self, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
            let device = Node::new(kind, Some(major), Some(minor));
            let decided = self.exceptions.iter().any(|(node, held)| {
                let touched = if self.allow { held & access != 0 } else { !held & access == 0 };
                node.covers(&device) && touched
            });
            decided != self.allow
        }
    }

    #[test]
    fn program_and_model_agree() {
        let filters = [
            json!([]),
            json!([{"allow": true, "access": "rwm"},
                {"allow": false, "type": "c", "minor": 3, "access": "r"},
                {"allow": false, "type": "b", "major": 8, "access": "wm"},
                {"allow": false, "type": "b", "major": 8, "minor": 2, "access": "rwm"}]),
            json!([{"allow": true, "type": "b", "minor": 3, "access": "rw"},
                {"allow": true, "type": "b", "major": 8, "access": "r"},
                {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rwm"},
                {"allow": true, "type": "a", "major": 1, "access": "w"}]),
        ];
        for filter in filters.map(|rules| filter(rules).unwrap()) {
            let program = filter.program();
            for (major, minor) in (0..12).flat_map(|a| (0..12).map(move |b| (a, b))) {
                for (kind, access) in (1..=ALL).flat_map(|a| [(Kind::Block, a), (Kind::Char, a)]) {
                    assert_eq!(
                        run(&program, kind, access, major, minor),
                        filter.permits(kind, access, major, minor),
                        "{filter}: {kind:?} {access} {major}:{minor}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_rules_leave_the_defaults() {
        let program = filter(json!([])).unwrap().program();
        let may = |kind, access, major, minor| run(&program, kind, access, major, minor);
        assert!(may(Kind::Char, READ | WRITE, 1, 3));
        assert!(may(Kind::Char, READ, 136, 77));
        assert!(may(Kind::Char, WRITE, 10, 200));
        assert!(may(Kind::Block, MKNOD, 8, 0));
        assert!(!may(Kind::Block, READ, 8, 0));
        assert!(!may(Kind::Block, MKNOD | READ, 8, 0));
        assert!(!may(Kind::Char, READ, 1, 1));
        assert!(!may(Kind::Block, READ, 1, 3));
    }

    #[test]
    fn accesses_of_one_node_add_up() {
        let rules = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "w"},
            {"allow": false, "type": "b", "major": 8, "access": "m"},
            {"allow": true, "type": "c", "major": 7, "access": "r"},
        ]);
        let filter = filter(rules).unwrap();
        let program = filter.program();
        assert!(run(&program, Kind::Block, READ | WRITE, 8, 0));
        assert!(!run(&program, Kind::Block, READ, 8, 1));
        assert!(run(&program, Kind::Char, READ, 7, 1 << 19));
        assert!(!run(&program, Kind::Char, READ | WRITE, 7, 1));
        let text = filter.to_string();
        assert!(text.starts_with("cgroup: devices: deny all, allow b *:* m, allow b 8:0 rw,"));
    }

    #[test]
    fn denials_from_everything_allowed() {
        let rules = json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
        ]);
        let filter = filter(rules).unwrap();
        let program = filter.program();
        assert!(run(&program, Kind::Block, READ, 8, 0));
        assert!(!run(&program, Kind::Block, WRITE | READ, 8, 0));
        assert!(run(&program, Kind::Block, WRITE, 9, 0));
        assert!(!filter.permits_all());
        assert_eq!(
            filter.v1_lines(),
            [("devices.allow", "a".to_owned()), ("devices.deny", "b 8:* w".to_owned())]
        );
    }

    #[test]
    fn a_denial_wider_than_a_default_stands() {
        let rules = json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 5, "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        ]);
        let program = filter(rules).unwrap().program();
        assert!(!run(&program, Kind::Char, READ, 5, 0));
        assert!(run(&program, Kind::Char, READ, 1, 3));
    }

    #[test]
    fn everything_allowed_needs_no_filter() {
        assert!(filter(json!([{"allow": true, "access": "rwm"}])).unwrap().permits_all());
        // -1 is any number; a denial that is allowed again is no denial.
        let rules = json!([
            {"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"},
            {"allow": false, "type": "c", "major": 4, "access": "rw"},
            {"allow": true, "type": "c", "access": "rwm"},
        ]);
        assert!(filter(rules).unwrap().permits_all());
    }

    #[test]
    fn all_types_of_some_access_are_both_kinds() {
        let filter = filter(json!([{"allow": true, "type": "a", "access": "r"}])).unwrap();
        assert!(!filter.permits_all());
        let program = filter.program();
        assert!(run(&program, Kind::Block, READ, 8, 0));
        assert!(!run(&program, Kind::Block, WRITE, 8, 0));
    }

    #[test]
    fn numbers_beyond_31_bits() {
        let rule = json!([{"allow": true, "type": "c", "major": u32::MAX - 1, "minor": 1u32 << 31,
            "access": "r"}]);
        let program = filter(rule).unwrap().program();
        assert!(run(&program, Kind::Char, READ, u32::MAX - 1, 1 << 31));
        assert!(!run(&program, Kind::Char, READ, u32::MAX - 1, 0));
    }

    #[test]
    fn v1_lines_of_the_defaults() {
        let [deny, allow] = filter(json!([])).unwrap().v1_lines();
        assert_eq!(deny, ("devices.deny", "a".to_owned()));
        assert_eq!(allow.0, "devices.allow");
        assert_eq!(
            allow.1.lines().collect::<Vec<_>>(),
            [
                "b *:* m",
                "c *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:2 rwm",
                "c 10:200 rwm",
                "c 136:* rwm",
            ]
        );
    }

    #[test]
    fn rules_without_effect() {
        let nothing = filter(json!([])).unwrap();
        let rule = |access: &str, major: i64, minor: i64| json!([{"allow": true, "type": "c", "major": major, "minor": minor, "access": access}]);
        for rules in [
            rule("x", 10, 229),
            rule(" ", 10, 229),
            rule("rwm", 4_294_967_295, 229),
            rule("rwm", 10, 4_294_967_295),
        ] {
            assert_eq!(filter(rules.clone()).unwrap(), nothing, "{rules}");
        }
        assert_eq!(filter(rule("rwa", 10, 229)).unwrap(), filter(rule("rw", 10, 229)).unwrap());
    }

    #[test]
    fn refusals() {
        for (rules, text) in [
            (
                json!([{"allow": true, "access": "r"}, {"allow": false}]),
                "device access at 1 field cannot be empty",
            ),
            (
                json!([{"allow": true, "type": "p", "access": "r"}]),
                "invalid cgroup device type \"p\"",
            ),
            (
                json!([{"allow": true, "type": "b", "major": -2, "access": "r"}]),
                "invalid device major number -2",
            ),
            (
                json!([
                    {"allow": true, "type": "b", "major": 8, "access": "rw"},
                    {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "w"},
                ]),
                "device rule \"deny b 8:1 w\" cuts a hole into the wider \"b 8:* rw\" before it, \
                 which the device cgroup cannot express",
            ),
        ] {
            assert_eq!(filter(rules).unwrap_err().to_string(), text);
        }
    }
}
