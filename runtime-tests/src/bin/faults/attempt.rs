//! One command with a fault, and its judgement.

use std::cell::OnceCell;
use std::fs;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime_tests::{Call, Container, Output, View, host, terminal};
use serde_json::json;

use crate::listing::{Difference, Listing, Places};
use crate::message;
use crate::neighbour::Neighbour;
use crate::point::{Fault, Point};
use crate::private;
use crate::shape::Shape;
use crate::trace::{self, Report};
use crate::verbs::Verb;

/// Time for processes of a command that was killed to end by themselves.
const SOON: Duration = Duration::from_millis(80);
/// Time after which what is left is a leak.
const LATE: Duration = Duration::from_secs(10);
/// Time after which a command of the driver hangs, and the tracer, which gives up earlier.
const HANGS: Duration = Duration::from_secs(60);

/// How the host became as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The command did all or nothing.
    AtOnce,
    /// After the first, second, ... command of the verb's list (`Verb::after`), or the other way round.
    After(&'static str),
    Never,
}

#[derive(Debug)]
pub struct Outcome {
    /// Call and object at the point. `None` if the run did not come to the point.
    pub reached: Option<(String, String)>,
    pub ending: Ending,
    /// True if a command whose call failed reported success.
    pub tolerated: bool,
    pub faults: Vec<String>,
}

/// A verb with a container, and the host before it.
pub struct Bench<'a> {
    pub verb: &'static Verb,
    pub shape: Shape,
    /// Its fixture would look at the whole state root when it is dropped.
    pub container: ManuallyDrop<Container>,
    neighbour: &'a Neighbour,
    places: Places,
    base: Listing,
    /// The host after the command without a fault.
    done: Listing,
    /// Call of `create` at which it is killed, for `reconcile`.
    killed_at: OnceCell<usize>,
    /// Terminal of the calls, for containers with one.
    terminal: Option<(OwnedFd, OwnedFd)>,
    /// Socket to which `create` sends a terminal.
    console: UnixListener,
}

impl<'a> Bench<'a> {
    pub fn new(
        verb: &'static Verb,
        shape: Shape,
        view: View,
        root: &Path,
        neighbour: &'a Neighbour,
    ) -> Result<Self> {
        let container = ManuallyDrop::new(shape.container(view, root.to_owned(), verb.program));
        container.directory("out");
        prepare_cgroups(&container.mark)?;
        let places = Places {
            mark: runtime_tests::container::own_mark(),
            directories: vec![
                container.dir.clone(),
                neighbour.directory().to_owned(),
                "/run".into(),
                "/var/lib".into(),
            ],
            names_only: vec![root.join("c")],
            ignored: vec![container.path("calls"), neighbour.directory().join("calls")],
        };
        let container_console = console(&container);
        let mut bench = Self {
            verb,
            shape,
            container,
            neighbour,
            places,
            base: Listing::default(),
            done: Listing::default(),
            killed_at: OnceCell::new(),
            console: UnixListener::bind(container_console).context("bind")?,
            terminal: (shape == Shape::Terminal).then(|| terminal::open(24, 80)),
        };
        bench.warm_up()?;
        Ok(bench)
    }

    /// Runs the verb once, so that what stays on purpose (the firewall's table, a filled volume) is part of the base.
    fn warm_up(&mut self) -> Result<()> {
        self.before()?;
        self.traced(None)?;
        for command in [self.verb.after, self.shape.after()].concat() {
            if command != "again" {
                self.call(command)?.output();
            }
        }
        self.remove_outputs();
        self.settle(&[], SOON);
        self.base = Listing::take(&self.places);
        Ok(())
    }

    /// Counts the calls of the command.
    pub fn count(&mut self) -> Result<Report> {
        self.before()?;
        let (report, output) = self.traced(None)?;
        ensure!(report.status == Some(0), "{}: {report:?} {output:?}", self.verb.name);
        self.settle(&[], SOON);
        self.done = Listing::take(&self.places);
        self.recover(false).map_or_else(|left| bail!("it leaves{left}"), |_| Ok(report))
    }

    /// Runs the command with a fault. `turned`: recover in the other order.
    pub fn attempt(&mut self, point: Point, turned: bool) -> Result<Outcome> {
        self.before()?;
        let before = match self.verb.before.is_empty() {
            true => self.base.clone(),
            false => Listing::take(&self.places),
        };
        let (report, output) = self.traced(Some(point))?;
        let mut faults = Vec::new();
        if !report.hangs.is_empty() || report.status.is_none() {
            faults.push(format!("it hangs: {}", report.hangs.join(", ")));
        }
        let (call, object) = report.reached.clone().unwrap_or_default();
        let errno = match (point.fault, report.status) {
            (Fault::Fail(errno), Some(code)) if code != 0 && report.reached.is_some() => {
                Some(errno)
            }
            _ => None,
        };
        // aril-cni prints its errors to stdout.
        let text = format!("{}{}", output.stdout, output.stderr);
        let said = message::fault(&text, errno, &call, &object);
        faults.extend(said.map(|what| format!("{what}: {text:?}")));
        let tolerated = matches!(point.fault, Fault::Fail(_)) && report.status == Some(0);
        let mut wanted = vec![&self.done];
        if !tolerated {
            wanted.push(&before);
        }
        let patience = if tolerated { LATE } else { SOON };
        let at_once = self.settle(&wanted, patience);
        // `reconcile` reports what it could not remove, and so does a foreground run, whose status is the program's.
        if tolerated && !at_once && text.is_empty() {
            let now = Difference::between(&self.done, &Listing::take(&self.places));
            faults.push(format!("it reports success, but{now}"));
        }
        let ending = match self.recover(turned) {
            Ok(_) if at_once => Ending::AtOnce,
            Ok((ending, mut complaints)) => {
                faults.append(&mut complaints);
                ending
            }
            Err(left) => {
                faults.push(format!("it leaves{left}"));
                self.scrub();
                Ending::Never
            }
        };
        if let Err(error) = self.neighbour.check() {
            faults.push(format!("the neighbour: {error:#}"));
        }
        Ok(Outcome { reached: report.reached, ending, tolerated, faults })
    }

    /// Brings the container to the state in which the verb is called.
    fn before(&self) -> Result<()> {
        for command in self.verb.before {
            match *command {
                "killed" => self.leave_killed()?,
                "stopped" => self.container.wait_for("stopped"),
                command => {
                    let output = self.call(command)?.output();
                    ensure!(output.code == Some(0), "{command}: {output:?}");
                }
            }
        }
        Ok(())
    }

    /// Leaves what a `create` leaves whose processes are killed after two thirds of its calls.
    fn leave_killed(&self) -> Result<()> {
        let report = self.container.path("calls/killed");
        let create = |point: &str| {
            let call = self.call("create {bundle} {console} {flags} {id}")?;
            call.before(&self.tracer(&report, point)?).output();
            anyhow::Ok(Report::read(&report))
        };
        if self.killed_at.get().is_none() {
            let counted = create("count")?;
            let calls = counted.calls.iter().filter(|(process, ..)| *process == 0).count();
            let _ = self.killed_at.set(calls * 2 / 3);
            self.container.delete_by_force().ok();
        }
        let at = self.killed_at.get().context("a call of create")?;
        let killed = create(&format!("0:{at}:kill-all"))?;
        ensure!(killed.reached.is_some(), "create made fewer than {at} calls");
        Ok(())
    }

    fn tracer(&self, report: &Path, point: &str) -> Result<Vec<std::ffi::OsString>> {
        let own = std::env::current_exe().context("own path")?;
        Ok(vec![own.into(), "trace".into(), report.into(), point.into(), "--".into()])
    }

    /// A call of a command of the table.
    fn call(&self, command: &str) -> Result<Call> {
        let container = &self.container;
        let mut words = Vec::new();
        for word in command.split(' ') {
            match word {
                "{bundle}" => words.extend(["-b".to_owned(), container.dir.display().to_string()]),
                "{flags}" => words.extend(self.shape.flags().iter().map(ToString::to_string)),
                "{console}" if self.shape == Shape::Terminal => {
                    let socket = console(container).display().to_string();
                    words.extend(["--console-socket".to_owned(), socket]);
                }
                "{console}" => {}
                "{id}" => words.push(container.id.clone()),
                word => words.push(word.replace("{dir}", &container.dir.display().to_string())),
            }
        }
        if words[0] == "cni" {
            return self.cni(&words[1]);
        }
        let mut call = container.call(&words).patient(HANGS);
        if let Some((_, slave)) = self.terminal.as_ref().filter(|_| words[0] == "run") {
            call = call.on_terminal(slave);
        }
        Ok(call)
    }

    fn cni(&self, command: &str) -> Result<Call> {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net1", "type": "aril-cni",
            "ipam": {"ranges": [[{"subnet": "10.81.0.0/24"}]]},
            "runtimeConfig": {
                "ips": ["10.81.0.9/24"],
                "portMappings": [{"hostPort": 8092, "containerPort": 80, "protocol": "tcp"}]
            }
        });
        let input = self.container.path("calls/cni.json");
        fs::write(&input, config.to_string()).context("the config")?;
        let plugin = self.container.runtime.path.with_file_name("aril-cni");
        let call = self.container.bare(&plugin, "cni").patient(HANGS);
        Ok(call
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "box")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", private::network_namespace())
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(fs::File::open(&input).context("the config")?))
    }

    /// Runs the verb's command under the tracer.
    fn traced(&self, point: Option<Point>) -> Result<(Report, Output)> {
        let path = self.container.path("calls/report");
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(trace::release(&path));
        let text = point.map_or_else(|| "count".to_owned(), |point| point.to_string());
        let mut running = self.call(self.verb.command)?.before(&self.tracer(&path, &text)?).spawn();
        if point.is_some_and(|point| point.fault == Fault::Hold) {
            while !Report::read(&path).is_held && !running.ended() {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.interfere(point.map_or(0, |point| point.call));
            fs::write(trace::release(&path), "").context("release the process")?;
        }
        let mut output = running.wait();
        output.stderr += &self.drain();
        Ok((Report::read(&path), output))
    }

    /// Calls another command while a process is held. It may fail; it must end.
    fn interfere(&self, number: usize) {
        let commands = ["delete --force {id}", "state {id}", "reconcile"];
        if let Ok(call) = self.call(commands[number % commands.len()]) {
            call.output();
        }
    }

    /// Returns what the terminal shows, and closes terminals that `create` sent.
    fn drain(&self) -> String {
        let _ = self.console.set_nonblocking(true);
        while self.console.accept().is_ok() {}
        let mut shown = Vec::new();
        let Some((master, _)) = &self.terminal else { return String::new() };
        let ready = || {
            let mut one = [nix::poll::PollFd::new(master.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut one, 0_u8).is_ok_and(|count| count > 0)
        };
        let mut buffer = [0; 4096];
        while ready() {
            match nix::unistd::read(master, &mut buffer) {
                Ok(length) if length > 0 => shown.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the host is one of these, for at most `patience`. Without one, waits for all of it.
    fn settle(&self, wanted: &[&Listing], patience: Duration) -> bool {
        let start = Instant::now();
        loop {
            if Listing::is_one_of(wanted, &self.places) {
                return true;
            }
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Calls the verb's command again in a new container, for what only that replaces, and removes its output.
    fn again(&self) -> Output {
        // If this fails, the command below reports it.
        let _ = self.before();
        let output = self.call(self.verb.command).expect("a command of the table").output();
        self.container.delete_by_force();
        self.remove_outputs();
        output
    }

    /// Removes what a command wrote for the caller, but no hidden files.
    fn remove_outputs(&self) {
        for entry in fs::read_dir(self.container.path("out")).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
    }

    /// Calls the commands of the verb's list until the host is as before. Returns how, and complaints about the commands.
    fn recover(&self, turned: bool) -> Result<(Ending, Vec<String>), Difference> {
        let mut complaints = Vec::new();
        self.remove_outputs();
        if self.settle(&[&self.base], Duration::ZERO) {
            return Ok((Ending::AtOnce, complaints));
        }
        let mut commands = [self.verb.after, self.shape.after()].concat();
        if turned && self.verb.after.len() > 1 {
            commands.swap(0, 1);
        }
        let last = commands.len() - 1;
        for (number, command) in commands.into_iter().enumerate() {
            let output = match command {
                "again" => self.again(),
                command => self.call(command).expect("a command of the table").output(),
            };
            let patience = if number == last { LATE } else { LATE / 10 };
            let done = self.settle(&[&self.base], patience);
            if output.code != Some(0) && (done || command.contains("force")) {
                complaints.push(format!("{command}: {:?}", output.stderr));
            }
            if done {
                return Ok((Ending::After(command), complaints));
            }
        }
        Err(Difference::between(&self.base, &Listing::take(&self.places)))
    }

    /// Removes by force what was left, and takes the rest as the base of the runs that follow.
    fn scrub(&mut self) {
        for pid in host::processes(&self.container.mark) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.container.delete_by_force();
        host::scrub(&self.container.mark);
        let _ = prepare_cgroups(&self.container.mark);
        let _ = fs::remove_dir_all(self.container.root.join("c"));
        let _ = fs::remove_dir_all(self.container.path("out"));
        self.container.directory("out");
        self.base = Listing::take(&self.places);
    }

    /// Removes the container's directory and its cgroups.
    pub fn end(self) {
        host::scrub(&self.container.mark);
        let _ = fs::remove_dir_all(&self.container.dir);
    }
}

fn console(container: &Container) -> PathBuf {
    container.path("calls/console.sock")
}

/// Makes the cgroup above the container's, which stays, in every hierarchy.
fn prepare_cgroups(mark: &str) -> Result<()> {
    let roots: Vec<PathBuf> = host::hierarchies();
    for root in roots {
        let directory = root.join(mark);
        if let Err(error) = fs::create_dir(&directory)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).context(directory.display().to_string());
        }
    }
    Ok(())
}
