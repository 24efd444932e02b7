//! From a command to the verb that carries it out.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::LinuxNamespaceType;

use super::command::{
    Command, Create, Exec, ExecProcess, Format, Global, Handover, Resources, Rootless, Run,
};
use super::log::Sink;
use super::root::Chosen;
use super::{Failure, claims, events, features, options, output, ps, stats, version, volume};
use crate::error::{Context, Error, Kind, OsContext, Result};
use crate::fs::process::in_user_namespace;
use crate::id::ContainerId;
use crate::identity::descriptors::{self, Passed};
use crate::lifecycle::events::Event;
use crate::lifecycle::exec::Source;
use crate::lifecycle::inside::{self, Place};
use crate::lifecycle::stats::Watcher;
use crate::lifecycle::{self, inspect};
use crate::plan::compile::{self, Options};
use crate::plan::facts::{HostFacts, Whose as Systemd};
use crate::spec;
use crate::state::Store;
use crate::sys::Errno;

/// What a verb is told besides its own arguments.
pub struct Caller<'a> {
    pub global: &'a Global,
    pub sink: &'a Sink,
}

/// The code of an `exec` whose process never ran: below it the process's own codes begin to matter.
const NOT_EXECUTED: u8 = 255;

/// The exit code. The prefixes name us: callers search for what follows them.
pub fn dispatch(caller: &Caller, command: Command) -> std::result::Result<u8, Failure> {
    match command {
        Command::Create(args) => {
            create(caller, args).map_err(|error| error.context("aril create failed"))?;
        }
        Command::Run(args) => {
            return Ok(run(caller, args).map_err(|error| error.context("aril run failed"))?);
        }
        Command::Exec(args) => {
            return exec(caller, args).map_err(|error| Failure {
                error: error.context("exec failed"),
                code: NOT_EXECUTED,
                help: None,
            });
        }
        Command::Start { id } => start(caller, &id)?,
        Command::State { id } => state(caller, &id)?,
        Command::List { format, quiet } => list(caller, format, quiet)?,
        Command::Ps { id, format, options } => processes(caller, &id, format, &options)?,
        Command::Kill { id, signal, all } => kill(caller, &id, signal, all)?,
        Command::Delete { id, force } => delete(caller, &id, force)?,
        Command::Pause { id } => {
            lifecycle::pause::pause(&caller.store()?, &ContainerId::parse(&id)?)?;
        }
        Command::Resume { id } => {
            lifecycle::pause::resume(&caller.store()?, &ContainerId::parse(&id)?)?;
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
        Command::Explain { bundle, format } => super::explain::explain(&bundle, format)?,
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

fn create(caller: &Caller, args: Create) -> Result<()> {
    let request = caller.create(args)?;
    let outcome = lifecycle::create::create(&caller.store()?, &request, &caller.warn())?;
    tell_timeline(&outcome)
}

fn run(caller: &Caller, args: Run) -> Result<u8> {
    if args.detach && args.seccomp_report {
        return Err(Error::new(
            Kind::Usage,
            "--seccomp-report and --detach cannot be used together",
        )
        .hint("who answers for what is refused must stay as long as the container"));
    }
    let request = lifecycle::create::Run {
        create: caller.create(args.create)?,
        detach: args.detach,
        subreaper: !args.no_subreaper,
        keep: args.keep,
        seccomp_report: args.seccomp_report,
    };
    let outcome = lifecycle::create::run(&caller.store()?, &request, &caller.warn())?;
    tell_timeline(&outcome)?;
    if let Some(refusals) = &outcome.refusals {
        write!(std::io::stderr(), "{refusals}").os("write", "stderr")?;
    }
    Ok(outcome.code)
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
    lifecycle::start::start(&caller.store()?, &ContainerId::parse(id)?)
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

fn kill(caller: &Caller, id: &str, signal: i32, all: bool) -> Result<()> {
    lifecycle::kill::kill(&caller.store()?, &ContainerId::parse(id)?, signal, all)
}

fn delete(caller: &Caller, id: &str, force: bool) -> Result<()> {
    lifecycle::delete::delete(&caller.store()?, &ContainerId::parse(id)?, force, &caller.warn())
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
    lifecycle::update::update(&caller.store()?, &id, &asked, schemas.as_deref())
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

/// The container's id would be the bundle's name.
fn plan(caller: &Caller, bundle: &Path) -> Result<()> {
    let mut config = spec::load(bundle)?;
    lifecycle::userns::preview(&Store::new(caller.global.root.path.clone()), &mut config)?;
    let _shared = lifecycle::network::edit(&caller.store()?, &mut config.spec)?;
    let mut facts = HostFacts::gather(&config.spec, bundle, caller.systemd())?;
    // What only root can run is planned as root would run it.
    facts.process.rootless &= spec::has_namespace(&config.spec, LinuxNamespaceType::User);
    let name = bundle.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let id = ContainerId::parse(&name).or_else(|_| ContainerId::parse("container"))?;
    let options = Options {
        bundle: bundle.to_owned(),
        state_directory: caller.global.root.path.join(&id),
        fill: Vec::new(),
        no_pivot: false,
        new_keyring: true,
        rootless_cgroups: caller.rootless_cgroups(),
        detach: false,
        console_socket: None,
        passed: Passed::default(),
        notify_directory: None,
    };
    let plan = compile::container(&id, &config.spec, &options, &facts)?;
    output::print(&plan.to_string())
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

    fn create(&self, args: Create) -> Result<lifecycle::create::Create> {
        self.global.root.warning().iter().for_each(|text| self.sink.warn(text));
        let id = ContainerId::parse(&args.id)?;
        let state_directory = self.global.root.path.join(&id);
        let resolved = options::resolve(
            *args.options,
            id.as_str(),
            &args.bundle,
            &state_directory,
            args.userns.is_some(),
        )?;
        Ok(lifecycle::create::Create {
            id,
            bundle: resolved.bundle.unwrap_or(args.bundle),
            config: resolved.config,
            volumes: resolved.volumes,
            handover: handover(args.handover),
            no_pivot: args.no_pivot,
            new_keyring: !args.no_new_keyring,
            systemd: self.systemd(),
            rootless_cgroups: self.rootless_cgroups(),
            timeline: args.timeline,
            userns: args.userns,
            annotations: args.annotations,
        })
    }

    /// Whose systemd makes the cgroup, if one is to. Without a directory of its own, a user
    /// namespace may be a host of its own, with its own systemd.
    fn systemd(&self) -> Option<Systemd> {
        let user = self.rootless_cgroups()
            && (!nix::unistd::geteuid().is_root() || std::env::var_os("XDG_RUNTIME_DIR").is_some());
        self.global.systemd_cgroup.then_some(if user { Systemd::User } else { Systemd::System })
    }

    /// Whether cgroups that we may not make are forgiven.
    fn rootless_cgroups(&self) -> bool {
        match self.global.rootless {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => !nix::unistd::geteuid().is_root() || in_user_namespace(),
        }
    }
}

fn handover(args: Handover) -> lifecycle::handover::Handover {
    let variable = |name| std::env::var(name).ok();
    let (fds, pid) = (variable("LISTEN_FDS"), variable("LISTEN_PID"));
    lifecycle::handover::Handover {
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        pid_file: args.pid_file,
        passed: descriptors::plan(
            fds.as_deref(),
            pid.as_deref(),
            std::process::id(),
            args.preserve_fds,
        ),
    }
}

/// To stderr, as stdout is the container's.
fn tell_timeline(outcome: &lifecycle::create::Outcome) -> Result<()> {
    let Some(timeline) = &outcome.timeline else { return Ok(()) };
    write!(std::io::stderr(), "{timeline}").os("write", "stderr")
}
