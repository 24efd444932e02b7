//! Plans limits from `process` and `linux`, without system calls.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, PosixRlimit, PosixRlimitType, Process, Scheduler,
};

use super::{IdSet, Rlimit, Step};
use crate::error::{Error, Result};
use crate::sys::process::SchedAttr;

/// Fields of the specification that limits and scheduling depend on.
pub struct LimitsRequest<'a> {
    pub process: &'a Process,
    /// Container's process, for an exec process, which inherits settings that its own process lacks.
    pub container: Option<&'a Process>,
    /// `linux.personality`, also for an exec process.
    pub personality: Option<&'a LinuxPersonality>,
    /// `linux.memoryPolicy`, for init only.
    pub memory_policy: Option<&'a LinuxMemoryPolicy>,
    /// True if the container's resources name CPUs.
    pub cpuset: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps of the child.
    pub steps: Vec<Step>,
    /// Limits that the parent sets when the child is ready.
    pub rlimits: Vec<Rlimit>,
    /// Value that the parent sets before the child drops privileges.
    pub oom_score_adj: Option<i32>,
    /// Affinity that the parent sets for itself before it clones an exec process.
    pub initial_affinity: Option<IdSet>,
    pub warnings: Vec<String>,
}

/// Plans limits and scheduling of a process.
///
/// # Errors
///
/// A value is out of range, an rlimit appears twice or is above its hard limit, or fields contradict each other.
pub fn plan(request: &LimitsRequest) -> Result<Plan> {
    let mut plan = Plan {
        rlimits: rlimits(request)?,
        oom_score_adj: oom_score_adj(request)?,
        ..Plan::default()
    };
    affinity(request, &mut plan)?;
    if let Some(scheduler) = inherited(request, Process::scheduler) {
        plan.steps.push(Step::Scheduler { attr: sched_attr(scheduler)?, cpuset: request.cpuset });
    }
    if let Some(priority) = inherited(request, Process::io_priority) {
        plan.steps.push(io_priority(priority)?);
    }
    if let Some(personality) = request.personality {
        plan.steps.push(persona(personality, &mut plan.warnings));
    }
    if let Some(policy) = request.memory_policy {
        plan.steps.push(memory_policy(policy)?);
    }
    Ok(plan)
}

fn inherited<'a, T>(
    request: &LimitsRequest<'a>,
    field: impl Fn(&'a Process) -> &'a Option<T>,
) -> Option<&'a T> {
    field(request.process).as_ref().or_else(|| request.container.and_then(|c| field(c).as_ref()))
}

/// Returns the rlimits. An exec process without rlimits has the container's.
fn rlimits(request: &LimitsRequest) -> Result<Vec<Rlimit>> {
    let of = |process: &Process| process.rlimits().clone().unwrap_or_default();
    let mut specified = of(request.process);
    if specified.is_empty() {
        specified = request.container.map(of).unwrap_or_default();
    }
    let mut limits: Vec<Rlimit> = Vec::with_capacity(specified.len());
    for specified in &specified {
        let limit = rlimit(specified)?;
        if limits.iter().any(|other| other.resource == limit.resource) {
            return Err(Error::config(format!("rlimits: duplicate entry {}", limit.name)));
        }
        limits.push(limit);
    }
    Ok(limits)
}

fn rlimit(specified: &PosixRlimit) -> Result<Rlimit> {
    let (resource, name) = resource(specified.typ());
    let limit = Rlimit { resource, name, soft: specified.soft(), hard: specified.hard() };
    if limit.soft > limit.hard {
        return Err(Error::config(format!(
            "rlimits: {name}: soft limit {} is above hard limit {}",
            limit.soft, limit.hard
        )));
    }
    Ok(limit)
}

// The constants are u32 in glibc's headers, and i32 in musl's.
#[allow(clippy::unnecessary_cast)]
fn resource(kind: PosixRlimitType) -> (u32, &'static str) {
    use PosixRlimitType::*;
    match kind {
        RlimitCpu => (libc::RLIMIT_CPU as u32, "RLIMIT_CPU"),
        RlimitFsize => (libc::RLIMIT_FSIZE as u32, "RLIMIT_FSIZE"),
        RlimitData => (libc::RLIMIT_DATA as u32, "RLIMIT_DATA"),
        RlimitStack => (libc::RLIMIT_STACK as u32, "RLIMIT_STACK"),
        RlimitCore => (libc::RLIMIT_CORE as u32, "RLIMIT_CORE"),
        RlimitRss => (libc::RLIMIT_RSS as u32, "RLIMIT_RSS"),
        RlimitNproc => (libc::RLIMIT_NPROC as u32, "RLIMIT_NPROC"),
        RlimitNofile => (libc::RLIMIT_NOFILE as u32, "RLIMIT_NOFILE"),
        RlimitMemlock => (libc::RLIMIT_MEMLOCK as u32, "RLIMIT_MEMLOCK"),
        RlimitAs => (libc::RLIMIT_AS as u32, "RLIMIT_AS"),
        RlimitLocks => (libc::RLIMIT_LOCKS as u32, "RLIMIT_LOCKS"),
        RlimitSigpending => (libc::RLIMIT_SIGPENDING as u32, "RLIMIT_SIGPENDING"),
        RlimitMsgqueue => (libc::RLIMIT_MSGQUEUE as u32, "RLIMIT_MSGQUEUE"),
        RlimitNice => (libc::RLIMIT_NICE as u32, "RLIMIT_NICE"),
        RlimitRtprio => (libc::RLIMIT_RTPRIO as u32, "RLIMIT_RTPRIO"),
        RlimitRttime => (libc::RLIMIT_RTTIME as u32, "RLIMIT_RTTIME"),
    }
}

/// Returns oom_score_adj. An exec process without it has the container's, as in runc.
fn oom_score_adj(request: &LimitsRequest) -> Result<Option<i32>> {
    let own = request.process.oom_score_adj();
    match own.or_else(|| request.container.and_then(Process::oom_score_adj)) {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::config(format!("invalid oomScoreAdj {score}: not from -1000 to 1000")))
        }
        score => Ok(score),
    }
}

/// Plans the CPU affinity, so that the caller's is not inherited.
///
/// An exec process can have one affinity before and one after it joins the cgroup. With only the first one, the kernel
/// restricts it to the cpuset.
fn affinity(request: &LimitsRequest, plan: &mut Plan) -> Result<()> {
    let specified = inherited(request, Process::exec_cpu_affinity)
        .filter(|affinity| request.container.is_some() && !is_empty(affinity));
    let Some(specified) = specified else {
        plan.steps.push(Step::CpuAffinity(None));
        return Ok(());
    };
    if let Some(list) = cpu_list(specified.initial()) {
        plan.initial_affinity = Some(IdSet::parse("execCPUAffinity.initial", list)?);
    }
    if let Some(list) = cpu_list(specified.cpu_affinity_final()) {
        let cpus = IdSet::parse("execCPUAffinity.final", list)?;
        plan.steps.push(Step::CpuAffinity(Some(cpus)));
    }
    Ok(())
}

fn is_empty(affinity: &ExecCPUAffinity) -> bool {
    cpu_list(affinity.initial()).or(cpu_list(affinity.cpu_affinity_final())).is_none()
}

fn cpu_list(list: &Option<String>) -> Option<&str> {
    list.as_deref().filter(|list| !list.is_empty())
}

fn sched_attr(scheduler: &Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy::*;
    let nice = scheduler.nice().unwrap_or(0);
    let priority = scheduler.priority().unwrap_or(0);
    let [runtime, deadline, period] =
        [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|v| v.unwrap_or(0));
    // SCHED_ISO is reserved, and no kernel accepts it.
    let policy = match scheduler.policy() {
        SchedOther => libc::SCHED_OTHER,
        SchedFifo => libc::SCHED_FIFO,
        SchedRr => libc::SCHED_RR,
        SchedBatch => libc::SCHED_BATCH,
        SchedIso => 4,
        SchedIdle => libc::SCHED_IDLE,
        SchedDeadline => libc::SCHED_DEADLINE,
    };
    if matches!(scheduler.policy(), SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(Error::config(format!("invalid scheduler.nice: {nice}")));
    }
    if priority != 0 && !matches!(scheduler.policy(), SchedFifo | SchedRr) {
        return Err(Error::config(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        ));
    }
    if [runtime, deadline, period] != [0; 3] && *scheduler.policy() != SchedDeadline {
        return Err(Error::config(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        ));
    }
    if *scheduler.policy() == SchedDeadline {
        check_deadline(scheduler)?;
    }
    let priority = u32::try_from(priority)
        .map_err(|_| Error::config(format!("invalid scheduler.priority: {priority}")))?;
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | sched_flag(*flag));
    let policy = policy as u32;
    Ok(SchedAttr { policy, flags, nice, priority, runtime, deadline, period, ..Default::default() })
}

/// Checks the rules of sched(7), for which the kernel has one errno. With SCHED_FLAG_KEEP_PARAMS the kernel ignores the
/// three parameters.
fn check_deadline(scheduler: &Scheduler) -> Result<()> {
    const LEAST: u64 = 1024;
    const MOST: u64 = 1 << 63;
    let refuse = |why: String| Err(Error::config(format!("sched_setattr: `SCHED_DEADLINE` {why}")));
    if scheduler.flags().iter().flatten().any(|f| *f == LinuxSchedulerFlag::SchedFlagKeepParams) {
        return Ok(());
    }
    let (runtime, deadline) = match (scheduler.runtime(), scheduler.deadline()) {
        (None, _) => return refuse("requires `runtime`".to_owned()),
        (_, None) => return refuse("requires `deadline`".to_owned()),
        (Some(runtime), Some(deadline)) => (*runtime, *deadline),
    };
    // A period of 0 means the deadline.
    let period = scheduler.period().filter(|period| *period != 0).unwrap_or(deadline);
    let all = [("runtime", runtime), ("deadline", deadline), ("period", period)];
    if let Some((name, _)) = all.iter().find(|(_, value)| *value == 0) {
        return refuse(format!("{name} must be greater than 0"));
    }
    for pair in all.windows(2) {
        let [(shorter, less), (longer, more)] = [pair[0], pair[1]];
        if less > more {
            return refuse(format!("{shorter} ({less}) must be <= {longer} ({more})"));
        }
    }
    match all.iter().find(|(_, value)| !(LEAST..MOST).contains(value)) {
        Some((name, value)) => {
            refuse(format!("{name} ({value}) must be between {LEAST} and {MOST}"))
        }
        None => Ok(()),
    }
}

fn sched_flag(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag::*;
    // Bits are in the order of `SCHED_FLAG_*` in linux/sched.h.
    1 << match flag {
        SchedResetOnFork => 0,
        SchedFlagReclaim => 1,
        SchedFlagDLOverrun => 2,
        SchedFlagKeepPolicy => 3,
        SchedFlagKeepParams => 4,
        SchedFlagUtilClampMin => 5,
        SchedFlagUtilClampMax => 6,
    }
}

fn io_priority(priority: &LinuxIOPriority) -> Result<Step> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
        Ok(level @ 0..=7) => Ok(Step::IoPriority { class, level }),
        _ => Err(Error::config(format!("invalid ioPriority.Priority: {}", priority.priority()))),
    }
}

fn persona(personality: &LinuxPersonality, warnings: &mut Vec<String>) -> Step {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        warnings.push("personality flags are not supported, and ignored".to_owned());
    }
    // `PER_*` in linux/personality.h.
    Step::Personality(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// Plans the memory policy.
///
/// # Errors
///
/// `nodes` is not a list of nodes, or the mode needs nodes and has none, or has nodes and takes none.
pub fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<Step> {
    use MemoryPolicyModeType::*;
    let list = policy.nodes().as_deref().map(str::trim).filter(|list| !list.is_empty());
    let nodes = list.map(|list| IdSet::parse("memory policy nodes", list)).transpose()?;
    let name = policy.mode();
    // Values are in the order of `MPOL_*` in linux/mempolicy.h.
    let mode = match name {
        MpolDefault => 0,
        MpolPreferred => 1,
        MpolBind => 2,
        MpolInterleave => 3,
        MpolLocal => 4,
        MpolPreferredMany => 5,
        MpolWeightedInterleave => 6,
    };
    match (name, &nodes) {
        (MpolDefault | MpolLocal, Some(nodes)) => Err(Error::config(format!(
            "invalid memory policy: {name} mode requires 0 nodes but got {}",
            nodes.count()
        ))),
        (MpolDefault | MpolLocal | MpolPreferred, None) | (_, Some(_)) => {
            let flags = policy.flags().iter().flatten();
            let mode = flags.fold(mode, |mode, flag| mode | mempolicy_flag(*flag));
            Ok(Step::MemoryPolicy { mode, nodes: nodes.unwrap_or_default() })
        }
        (_, None) => {
            let text = format!("invalid memory policy: {name} mode needs at least one node");
            Err(Error::config(text))
        }
    }
}

fn mempolicy_flag(flag: MemoryPolicyFlagType) -> u32 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Plans `process`, without the defaults that every process has, as init or as an exec process of `container`.
    fn planned(process: Value, container: Option<Value>) -> Result<Plan> {
        let whole = |mut value: Value| -> Process {
            value["cwd"] = "/".into();
            value["user"] = json!({});
            serde_json::from_value(value).unwrap()
        };
        let (process, container) = (whole(process), container.map(whole));
        plan(&LimitsRequest {
            process: &process,
            container: container.as_ref(),
            personality: None,
            memory_policy: None,
            cpuset: false,
        })
    }

    fn steps(process: Value, container: Option<Value>) -> Vec<String> {
        let plan = planned(process, container).unwrap();
        plan.steps.iter().map(ToString::to_string).collect()
    }

    fn refusal(process: Value) -> String {
        planned(process, None).unwrap_err().to_string()
    }

    #[test]
    fn without_settings_only_the_affinity_is_reset() {
        assert_eq!(steps(json!({}), None), ["cpu affinity all"]);
        let affinity = json!({"execCPUAffinity": {"initial": "0", "final": "1"}});
        assert_eq!(steps(affinity, None), ["cpu affinity all"]);
    }

    #[test]
    fn an_exec_chooses_its_cpus() {
        let exec = |initial: &str, last: &str| {
            let affinity = json!({"execCPUAffinity": {"initial": initial, "final": last}});
            planned(json!({}), Some(affinity)).unwrap()
        };
        let plan = exec("0-1", "3");
        assert_eq!(plan.initial_affinity.unwrap().to_string(), "0-1");
        assert_eq!(plan.steps[0].to_string(), "cpu affinity 3");
        let initial = json!({"execCPUAffinity": {"initial": "0"}});
        assert_eq!(steps(initial, Some(json!({}))), [""; 0]);
    }

    #[test]
    fn rlimits_are_named_and_unique() {
        let nofile = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2});
        let plan = planned(json!({"rlimits": [nofile]}), None).unwrap();
        assert_eq!(plan.rlimits[0].to_string(), "RLIMIT_NOFILE 1:2");
        assert_eq!(plan.rlimits[0].resource, 7);
        let inherited = planned(json!({"rlimits": []}), Some(json!({"rlimits": [nofile]})));
        assert_eq!(inherited.unwrap().rlimits, plan.rlimits);
        assert_eq!(
            refusal(json!({"rlimits": [nofile, nofile]})),
            "rlimits: duplicate entry RLIMIT_NOFILE"
        );
        assert_eq!(
            refusal(json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 3, "hard": 2}]})),
            "rlimits: RLIMIT_CORE: soft limit 3 is above hard limit 2"
        );
    }

    #[test]
    fn every_resource_has_its_name() {
        for number in 0..16 {
            let kinds = include_str!("plan.rs").lines().filter(|l| l.contains("(libc::RLIMIT_"));
            let name = kinds.filter_map(|l| l.split('"').nth(1)).find(|name| {
                let kind = name.parse().unwrap();
                assert_eq!(resource(kind).1, *name);
                resource(kind).0 == number
            });
            assert!(name.is_some(), "{number}");
        }
    }

    #[test]
    fn the_scheduler_is_checked_by_policy() {
        let scheduler = |value: Value| json!({"scheduler": value});
        for (value, message) in [
            (json!({"policy": "SCHED_OTHER", "nice": 20}), "invalid scheduler.nice: 20"),
            (json!({"policy": "SCHED_BATCH", "nice": -21}), "invalid scheduler.nice: -21"),
            (
                json!({"policy": "SCHED_OTHER", "priority": 1}),
                "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            ),
            (
                json!({"policy": "SCHED_FIFO", "runtime": 1}),
                "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
            ),
            (json!({"policy": "SCHED_RR", "priority": -1}), "invalid scheduler.priority: -1"),
        ] {
            assert_eq!(refusal(scheduler(value)), message);
        }
        for (value, why) in [
            (json!({"deadline": 2000}), "requires `runtime`"),
            (json!({"runtime": 2000}), "requires `deadline`"),
            (json!({"runtime": 0, "deadline": 2000}), "runtime must be greater than 0"),
            (
                json!({"runtime": 3000, "deadline": 2000}),
                "runtime (3000) must be <= deadline (2000)",
            ),
            (
                json!({"runtime": 2000, "deadline": 4000, "period": 3000}),
                "deadline (4000) must be <= period (3000)",
            ),
            (
                json!({"runtime": 1023, "deadline": 2000}),
                "runtime (1023) must be between 1024 and 9223372036854775808",
            ),
            (
                json!({"runtime": 2000, "deadline": 9_223_372_036_854_775_808_u64}),
                "deadline (9223372036854775808) must be between 1024 and 9223372036854775808",
            ),
        ] {
            let mut value = value;
            value["policy"] = "SCHED_DEADLINE".into();
            let message = format!("sched_setattr: `SCHED_DEADLINE` {why}");
            assert_eq!(refusal(scheduler(value)), message);
        }
        let kept = json!({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_KEEP_PARAMS"]});
        steps(json!({}), Some(scheduler(kept)));
        let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000, "period": 3000,
            "flags": ["SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]});
        assert_eq!(
            steps(json!({}), Some(scheduler(deadline)))[1],
            "scheduler policy 6 flags 0x3 nice 0 priority 0 runtime 1024 deadline 2000 period 3000"
        );
    }

    #[test]
    fn io_priority_and_oom_score() {
        let priority =
            |level: i64| json!({"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": level}});
        assert_eq!(steps(priority(7), None)[1], "io priority class 3 level 7");
        assert_eq!(refusal(priority(8)), "invalid ioPriority.Priority: 8");
        assert_eq!(refusal(priority(-1)), "invalid ioPriority.Priority: -1");
        assert_eq!(
            refusal(json!({"oomScoreAdj": 1001})),
            "invalid oomScoreAdj 1001: not from -1000 to 1000"
        );
    }

    #[test]
    fn memory_policies_and_their_nodes() {
        let step = |value: Value| memory_policy(&serde_json::from_value(value).unwrap());
        let text = |value| step(value).map_or_else(|e| e.to_string(), |s| s.to_string());
        for (value, expected) in [
            (json!({"mode": "MPOL_DEFAULT"}), "memory policy mode 0x0 nodes none"),
            (json!({"mode": "MPOL_PREFERRED"}), "memory policy mode 0x1 nodes none"),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]}),
                "memory policy mode 0x8002 nodes 0-1",
            ),
            (
                json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
                "invalid memory policy: MPOL_LOCAL mode requires 0 nodes but got 1",
            ),
            (
                json!({"mode": "MPOL_INTERLEAVE"}),
                "invalid memory policy: MPOL_INTERLEAVE mode needs at least one node",
            ),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn flags_of_a_personality_are_a_warning() {
        let mut warnings = Vec::new();
        let linux32: LinuxPersonality =
            serde_json::from_value(json!({"domain": "LINUX32", "flags": ["x"]})).unwrap();
        assert_eq!(persona(&linux32, &mut warnings).to_string(), "personality 0x8");
        assert_eq!(warnings.len(), 1);
    }
}
