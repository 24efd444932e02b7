//! Calls the verb of a command.

use std::ffi::CString;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use super::command::{
    CgroupManager, Command, Create, Exec, ExecProcess, Format, Global, Handover, Resources,
    Rootless, Run,
};
use super::log::Sink;
use super::root::Chosen;
use super::{
    Failure, claims, events, features, help, options, output, policy, ps, stats, version, volume,
};
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::process::in_user_namespace;
use crate::id::ContainerId;
use crate::identity::descriptors::{self, PassedDescriptors};
use crate::lifecycle::events::Event;
use crate::lifecycle::exec::Source;
use crate::lifecycle::inside::{self, Place};
use crate::lifecycle::monitor::{self, Process};
use crate::lifecycle::prepare::{self, ContainerRequest, Purpose};
use crate::lifecycle::stats::Watcher;
use crate::lifecycle::timeline::Timeline;
use crate::lifecycle::{self, inspect};
use crate::plan::facts::Systemd;
use crate::spec::grant::Policy;
use crate::spec::{self, Extensions};
use crate::state::{Ending, Store};
use crate::sys::Errno;
use crate::sys::regex::Regex;

/// Global flags and the log, which every verb gets.
pub struct Caller<'a> {
    pub global: &'a Global,
    pub sink: &'a Sink,
}

/// Exit status of an `exec` whose process did not start. Lower values are exit statuses of the process.
const NOT_EXECUTED: u8 = 255;

/// Runs a command and returns the exit status. Error prefixes name the program: callers search for the text after them.
///
/// # Errors
///
/// The command fails; the failure has its exit status.
pub fn dispatch(caller: &Caller, command: Command) -> std::result::Result<u8, Failure> {
    match command {
        Command::Create(args) => {
            create(caller, args).map_err(|error| error.context("aril create failed"))?;
        }
        Command::Run(args) => {
            return run(caller, args).map_err(not_run);
        }
        Command::Exec(args) => {
            return exec(caller, args).map_err(|error| match error.kind() {
                Kind::Interrupted => Failure { code: error.kind().exit_code(), error },
                _ => Failure { error: error.context("exec failed"), code: NOT_EXECUTED },
            });
        }
        Command::Start { id } => start(caller, &id)?,
        Command::Wait { id } => return Ok(wait(caller, &id)?),
        Command::State { id } => state(caller, &id)?,
        Command::List { format, quiet } => list(caller, format, quiet)?,
        Command::Ps { id, format, options } => processes(caller, &id, format, &options)?,
        Command::Kill { id, regex, signal, all } => {
            let store = caller.store()?;
            for_each(caller, &store, &id, regex, |id| {
                lifecycle::kill::kill(&store, id, signal, all)
            })?;
        }
        Command::Delete { id, regex, force } => {
            let store = caller.store()?;
            for_each(caller, &store, &id, regex, |id| {
                lifecycle::delete::delete(&store, id, force, &caller.warn())
            })?;
        }
        Command::Pause { id } => {
            lifecycle::pause::pause(&caller.store()?, &ContainerId::parse(&id)?)?;
        }
        Command::Resume { id } => {
            lifecycle::pause::resume(&caller.store()?, &ContainerId::parse(&id)?)?;
        }
        Command::Mounts { action, id, file } => {
            let (store, id) = (caller.store()?, ContainerId::parse(&id)?);
            lifecycle::mounts::change(&store, &id, action, &file, &caller.warn())?;
        }
        Command::Update { id, resources } => update(caller, &id, resources)?,
        Command::Events { id, interval, stats } => events(caller, &id, interval, stats)?,
        Command::Stats { ids, format, interval, once } => {
            stats(caller, &ids, format, interval, once)?;
        }
        Command::Diff { id, format } => {
            caller.among_its_files(&id, |store, id, place| {
                super::diff::diff(store, id, format, place)
            })?;
        }
        Command::Commit { id, to, pause } => {
            caller.among_its_files(&id, |store, id, place| {
                let skipped = lifecycle::commit::commit(store, id, &to, pause, place)?;
                caller.tell_skipped(&skipped);
                Ok(())
            })?;
        }
        Command::Export { id, to, pause } => {
            caller.among_its_files(&id, |store, id, place| {
                let skipped = lifecycle::export::export(store, id, &to, pause, place)?;
                caller.tell_skipped(&skipped);
                Ok(())
            })?;
        }
        Command::Reconcile { dry_run, format } => {
            super::reconcile::reconcile(&caller.store()?, dry_run, format)?;
        }
        Command::Plan { bundle } => plan(caller, &bundle)?,
        Command::Explain { bundle, format } => explain(caller, &bundle, format)?,
        Command::Spec { bundle, rootless } => {
            super::spec::write(&bundle, &super::spec::For::this_host(rootless))?;
        }
        Command::Volume { words, format } => output::print(&volume::act(&words, format)?)?,
        Command::Network(action) => super::network::act(&action)?,
        Command::Features => output::print(&features::text(claims::facts()))?,
        Command::Help(text) => output::print(&text)?,
        Command::Version => output::print(&version::text())?,
    }
    Ok(0)
}

/// Adds the exit status: 127 for a missing program, 126 for one that is not executable. An error of execve(2) stays a line
/// by itself, which runc's tests compare. They look for `runc run failed`, too.
fn not_run(error: Error) -> Failure {
    let code = error.kind().exit_code();
    let by_execve = error.is_of_program() && error.to_string().starts_with("exec ");
    let bare = by_execve || error.kind() == Kind::Interrupted;
    let failed = || format!("{} run failed", help::called());
    Failure { error: if bare { error } else { error.context(failed()) }, code }
}

fn create(caller: &Caller, args: Create) -> Result<()> {
    let request = caller.create(args)?;
    let outcome = lifecycle::create::create(&caller.store()?, &request, &caller.warn())?;
    tell_timeline(&outcome)
}

#[expect(clippy::disallowed_methods, reason = "the caller's service manager")]
fn run(caller: &Caller, args: Run) -> Result<u8> {
    if args.detach && args.seccomp_report {
        return Err(Error::new(
            Kind::Usage,
            "--seccomp-report and --detach cannot be used together",
        )
        .hint("the report is printed when the container ends: run it in the foreground"));
    }
    // Without a bundle the caller is a user: the command prints the id and ends, and a monitor stays. A service manager
    // becomes the parent of its main process.
    let bare = args.detach && args.create.options.rootfs.is_some();
    let supervised = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
    let monitored = bare && !supervised;
    if args.rm && args.detach && !monitored {
        return Err(unmonitored(supervised));
    }
    let id = bare.then(|| args.create.id.clone());
    let request = lifecycle::create::Run {
        release: bare,
        monitored,
        create: caller.create(args.create)?,
        detach: args.detach,
        subreaper: !args.no_subreaper,
        keep: args.keep || args.detach && !args.rm,
        seccomp_report: args.seccomp_report,
    };
    let monitor = match monitored.then(monitor::fork).transpose()? {
        None => None,
        Some(Process::Monitor(monitor)) => Some(monitor),
        Some(Process::Caller(0)) => return print_id(id).map(|()| 0),
        Some(Process::Caller(code)) => return Ok(code),
    };
    let outcome = lifecycle::create::run(&caller.store()?, &request, &caller.warn())?;
    tell_timeline(&outcome)?;
    if let Some((monitor, container)) = monitor.zip(outcome.monitored) {
        return monitor.stay(&caller.global.root.path, &request.create.id, container);
    }
    print_id(id)?;
    if let Some(refusals) = &outcome.refusals {
        write!(std::io::stderr(), "{refusals}").os("write", "stderr")?;
    }
    Ok(outcome.code)
}

#[cold]
fn unmonitored(supervised: bool) -> Error {
    let (text, advice) = if supervised {
        (
            "--rm cannot be used together with --detach where NOTIFY_SOCKET is set",
            "without --detach the service manager waits for the container, and `run` deletes it",
        )
    } else {
        (
            "--rm and --detach with a bundle cannot be used together",
            "no process of Aril waits for such a container: `aril delete` deletes it",
        )
    };
    Error::new(Kind::Usage, text).hint(advice)
}

fn print_id(id: Option<String>) -> Result<()> {
    id.map_or(Ok(()), |id| output::print(&format!("{id}\n")))
}

/// Prints the exit status, and ends with it.
fn wait(caller: &Caller, id: &str) -> Result<u8> {
    let exit = lifecycle::wait::wait(&caller.store()?, &ContainerId::parse(id)?)?;
    output::print(&format!("{}\n", exit.status))?;
    Ok(exit.status as u8)
}

fn exec(caller: &Caller, args: Exec) -> Result<u8> {
    let request = lifecycle::exec::Exec {
        id: ContainerId::parse(&args.id)?,
        process: match args.process {
            ExecProcess::File(path) => Source::File(path),
            ExecProcess::Edited(edits) => Source::Edited(edits),
        },
        handover: handover(args.handover),
        detach: args.detach,
        cgroups: args.cgroups,
        ignore_paused: args.ignore_paused,
    };
    Ok(lifecycle::exec::exec(&caller.store()?, &request, &caller.warn())?.code)
}

fn start(caller: &Caller, id: &str) -> Result<()> {
    lifecycle::start::start(&caller.store()?, &ContainerId::parse(id)?, &caller.warn())
}

fn state(caller: &Caller, id: &str) -> Result<()> {
    let view = inspect::state(&caller.store()?, &ContainerId::parse(id)?)?;
    output::print(&output::state(&state_view(view, String::new())))
}

fn list(caller: &Caller, format: Format, quiet: bool) -> Result<()> {
    let root = &caller.global.root;
    if root.chosen == Chosen::Explicit && !root.path.exists() {
        return Err(Error::os("open", root.path.display(), Errno::ENOENT));
    }
    let (views, broken) = inspect::list(&caller.store()?)?;
    broken.iter().for_each(|error| caller.sink.note(error));
    let users = output::Users::of_this_host();
    let views: Vec<_> = views
        .into_iter()
        .map(|view| {
            let owner = users.name(view.uid);
            state_view(view, owner)
        })
        .collect();
    output::print(&match (quiet, format) {
        (true, _) => output::list_ids(&views),
        (false, Format::Json) => output::list_json(&views),
        (false, Format::Table) => output::list_table(&views),
    })
}

fn state_view(view: inspect::View, owner: String) -> output::StateView {
    let record = view.record;
    output::StateView {
        oci_version: spec::OCI_VERSION.to_owned(),
        id: record.id,
        pid: view.pid.0,
        status: view.status.to_string(),
        bundle: record.bundle.display().to_string(),
        rootfs: record.config.rootfs.display().to_string(),
        created: record.created,
        annotations: record.annotations,
        owner,
        exit_lost: view.ending == Ending::Lost,
        exit: match view.ending {
            Ending::Recorded(exit) => Some(output::ExitView {
                exit_status: exit.status,
                exit_signal: exit.signal,
                oom_killed: exit.oom_killed,
                started: exit.started,
                finished: exit.finished,
            }),
            _ => None,
        },
    }
}

fn processes(caller: &Caller, id: &str, format: Format, options: &[String]) -> Result<()> {
    let pids = inspect::pids(&caller.store()?, &ContainerId::parse(id)?)?;
    let pids: Vec<_> = pids.into_iter().map(|pid| pid.0).collect();
    output::print(&match format {
        Format::Json => ps::json(&pids),
        Format::Table => ps::table(&pids, options)?,
    })
}

/// Acts on the container of that id, or on each one with an id that the regular expression matches. An error of one
/// container does not stop the others.
fn for_each(
    caller: &Caller,
    store: &Store,
    id: &str,
    regex: bool,
    act: impl Fn(&ContainerId) -> Result<()>,
) -> Result<()> {
    if !regex {
        return act(&ContainerId::parse(id)?);
    }
    let invalid = || Error::new(Kind::Usage, format!("invalid regular expression {id:?}"));
    let text = |text: &str| CString::new(text).map_err(|_| invalid());
    let expression = Regex::new(&text(id)?).ok_or_else(invalid)?;
    let mut last = None;
    for id in store.ids()? {
        if expression.matches(&text(id.as_str())?)
            && let Err(error) = act(&id)
            && let Some(before) = last.replace(error.context(format!("container {id}")))
        {
            caller.sink.note(&before);
        }
    }
    last.map_or(Ok(()), Err)
}

fn update(caller: &Caller, id: &str, resources: Resources) -> Result<()> {
    let mut schemas = None;
    let asked = match resources {
        Resources::Flags { limits, rdt, ignored } => {
            schemas = rdt;
            let warn = caller.warn();
            ignored.iter().for_each(|flag| {
                warn(&format!("--{flag} is ignored: Linux has no such limit any more"))
            });
            *limits
        }
        Resources::File(path) => {
            let bytes = std::fs::read(&path).os("read", path.display())?;
            spec::parse_resources(&bytes).context(|| format!("load {}", path.display()))?
        }
        Resources::Stdin => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).os("read", "stdin")?;
            spec::parse_resources(&bytes).context(|| "load the resources from stdin".to_owned())?
        }
    };
    let id = ContainerId::parse(id)?;
    lifecycle::update::update(&caller.store()?, &id, &asked, schemas.as_deref(), &caller.warn())
}

fn events(caller: &Caller, id: &str, interval: Duration, stats: bool) -> Result<()> {
    let (store, container) = (caller.store()?, ContainerId::parse(id)?);
    let mut tell = |event| output::print(&events::line(id, &event));
    if stats {
        let sample = lifecycle::events::sample(&store, &container)?;
        return tell(Event::Stats(Box::new(sample)));
    }
    lifecycle::events::follow(&store, &container, interval, &mut tell)
}

fn stats(
    caller: &Caller,
    ids: &[String],
    format: Format,
    interval: Duration,
    once: bool,
) -> Result<()> {
    let store = caller.store()?;
    let ids = ids.iter().map(|id| ContainerId::parse(id)).collect::<Result<_>>()?;
    let mut watcher = Watcher::begin(&store, ids)?;
    let clear = if !once && std::io::stdout().is_terminal() { stats::CLEAR } else { "" };
    loop {
        std::thread::sleep(interval);
        let usages = watcher.look()?;
        output::print(&match format {
            Format::Json => output::compact(&usages) + "\n",
            Format::Table => clear.to_owned() + &stats::table(&usages),
        })?;
        if once || watcher.is_over() {
            return Ok(());
        }
    }
}

/// Prints what `create` would do with a bundle.
fn plan(caller: &Caller, bundle: &Path) -> Result<()> {
    let request = caller.request_for(bundle)?;
    let mut time = Timeline::default();
    let prepared = prepare::prepare(&caller.store()?, &request, Purpose::Show, &mut time)?;
    prepared.settled.warnings.iter().for_each(|text| caller.sink.warn(text));
    output::print(&prepared.plan.to_string())
}

/// Prints what a container of a bundle may do to its host.
fn explain(caller: &Caller, bundle: &Path, format: Format) -> Result<()> {
    let request = caller.request_for(bundle)?;
    let settled = prepare::settle(&caller.store()?, &request, Purpose::Show)?;
    settled.warnings.iter().for_each(|text| caller.sink.warn(text));
    super::explain::print(bundle, &settled, format)
}

impl Caller<'_> {
    fn store(&self) -> Result<Store> {
        self.global.root.prepare()?;
        Ok(Store::new(self.global.root.path.clone()))
    }

    fn among_its_files(
        &self,
        id: &str,
        work: impl FnOnce(&Store, &ContainerId, Place) -> Result<()>,
    ) -> Result<()> {
        let (store, id) = (self.store()?, ContainerId::parse(id)?);
        inside::among_its_files(&store, &id, |place| work(&store, &id, place))
    }

    fn tell_skipped(&self, skipped: &[String]) {
        skipped.iter().for_each(|what| self.sink.warn(&format!("{what}: left out")));
    }

    fn warn(&self) -> impl Fn(&str) {
        |message| self.sink.warn(message)
    }

    fn create(&self, args: Create) -> Result<ContainerRequest> {
        self.global.root.warning().iter().for_each(|text| self.sink.warn(text));
        let id = ContainerId::parse(&args.id)?;
        let state_directory = self.global.root.path.join(&id);
        let policy = self.policy();
        let resolved = options::resolve(
            *args.options,
            id.as_str(),
            options::Documents { bundle: &args.bundle, config: args.config.as_deref() },
            &state_directory,
            &policy,
        )?;
        Ok(ContainerRequest {
            id,
            bundle: resolved.bundle.unwrap_or(args.bundle),
            config: resolved.config,
            volumes: resolved.volumes,
            handover: handover(args.handover),
            no_pivot: args.no_pivot,
            host_mounts: self.global.host_mounts,
            new_keyring: !args.no_new_keyring,
            init: args.init,
            systemd: self.systemd(),
            rootless_cgroups: self.rootless_cgroups(),
            no_cgroup: self.no_cgroup(),
            timeline: args.timeline,
            extensions: resolved.extensions,
            policy,
        })
    }

    /// Request of a verb that has no options for containers. The container has the name of the bundle's directory.
    fn request_for(&self, bundle: &Path) -> Result<ContainerRequest> {
        let name = bundle.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(ContainerRequest {
            id: ContainerId::parse(&name).or_else(|_| ContainerId::parse("container"))?,
            bundle: bundle.to_owned(),
            config: None,
            volumes: Vec::new(),
            handover: lifecycle::handover::Handover::default(),
            no_pivot: false,
            host_mounts: self.global.host_mounts,
            new_keyring: true,
            init: false,
            systemd: self.systemd(),
            rootless_cgroups: self.rootless_cgroups(),
            no_cgroup: self.no_cgroup(),
            timeline: false,
            extensions: Extensions::default(),
            policy: self.policy(),
        })
    }

    /// Annotations of a config.json that have an effect.
    fn policy(&self) -> Policy {
        policy::policy(self.global.annotations.clone())
    }

    /// Returns the systemd instance that creates the cgroup, if the driver is systemd. A user namespace without
    /// `$XDG_RUNTIME_DIR` may be a host with a systemd of its own.
    #[expect(clippy::disallowed_methods, reason = "whether the caller has a session")]
    fn systemd(&self) -> Option<Systemd> {
        let user = self.rootless_cgroups()
            && (!nix::unistd::geteuid().is_root() || std::env::var_os("XDG_RUNTIME_DIR").is_some());
        let asked = self.global.cgroup_manager == CgroupManager::Systemd;
        asked.then_some(if user { Systemd::User } else { Systemd::System })
    }

    fn no_cgroup(&self) -> bool {
        self.global.cgroup_manager == CgroupManager::Disabled
    }

    /// True if the container continues without a cgroup that Aril is not permitted to create.
    fn rootless_cgroups(&self) -> bool {
        match self.global.rootless {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => !nix::unistd::geteuid().is_root() || in_user_namespace(),
        }
    }
}

/// Reserves the numbers of descriptors that the container gets, before any file is opened.
///
/// # Errors
///
/// A number that a variable or option announces is not open.
pub fn reserve_descriptors(command: &mut Command) -> Result<()> {
    let handover = match command {
        Command::Create(create) => &mut create.handover,
        Command::Run(run) => &mut run.create.handover,
        Command::Exec(exec) => &mut exec.handover,
        _ => return Ok(()),
    };
    if handover.preserve_fds > 0 {
        handover.preserve_fds = passed(handover.preserve_fds).reserve()?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "descriptors that the caller passes: sd_listen_fds(3)"
)]
fn passed(preserve: u32) -> PassedDescriptors {
    let variable = |name| std::env::var(name).ok();
    let (fds, pid) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
    descriptors::plan(fds.as_deref(), pid.as_deref(), std::process::id(), preserve)
}

fn handover(args: Handover) -> lifecycle::handover::Handover {
    lifecycle::handover::Handover {
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        pid_file: args.pid_file,
        passed: passed(args.preserve_fds),
    }
}

/// Prints to stderr, because stdout belongs to the container.
fn tell_timeline(outcome: &lifecycle::create::Outcome) -> Result<()> {
    let Some(timeline) = &outcome.timeline else { return Ok(()) };
    write!(std::io::stderr(), "{timeline}").os("write", "stderr")
}
