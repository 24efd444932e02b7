//! Measures the time that a network adds to a start, beside Debian's CNI plugins and netavark for the same result: a
//! link on a bridge, an address, a published port. Prints medians and 99th percentiles in one table. All measurements
//! are interleaved in one run, in a new network namespace. A start ends when the container's program runs: this
//! program, mounted as `/now`, prints the time. The remaining time of a `run` is its end.
//!
//! It then measures throughput and connections per second over such links and those of the plugins, container to
//! container and host to container.
//!
//! `RUNTIME=... networks [ROUNDS [starts|attachments|traffic|crowd]]`, as root, below `unshare --net --mount`: see
//! `make bench-network`. `NETAVARK` and `CNI_PLUGINS` name their paths, if they are not Debian's.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use runtime_tests::Runtime;
use serde_json::{Value, json};

/// Other containers on the network. A bridge has at most 1023 ports, and more containers are measured.
const CROWD: usize = 999;
const PORTS: u64 = 10_000;
/// Rest before a start, as for an engine that starts a container now and then: caches are cold, processors asleep.
const REST: Duration = Duration::from_millis(100);

/// Path of this program in the container.
const NOW: &str = "/now";

fn main() -> Result<()> {
    if std::env::args().next().as_deref() == Some(NOW) {
        println!("{}", now().as_nanos());
        return Ok(());
    }
    let rounds = std::env::args().nth(1).map_or(Ok(51), |n| n.parse()).context("ROUNDS")?;
    let part = std::env::args().nth(2);
    let wanted = |name| part.as_ref().is_none_or(|part| part == name);
    sh("mount -t tmpfs none /run && mount -t tmpfs none /var/lib && ip link set lo up")?;
    let bench = Bench::prepare()?;
    for (name, measure) in
        [("starts", Bench::starts as Measure), ("attachments", Bench::attachments)]
    {
        if wanted(name) {
            println!("\n| µs, median (p99) | tight | rested |\n|---|---:|---:|");
            let (tight, rested) =
                (measure(&bench, rounds, None)?, measure(&bench, rounds, Some(REST))?);
            for (tight, rested) in tight.iter().zip(&rested) {
                println!("| {} | {} | {} |", tight.name, tight.text(), rested.text());
            }
        }
    }
    if wanted("traffic") {
        bench.traffic()?;
    }
    if wanted("crowd") {
        bench.crowd()?;
    }
    Ok(())
}

type Measure = fn(&Bench, usize, Option<Duration>) -> Result<Vec<Series>>;

/// Time since 1970, a clock that is the same in every container.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn sh(script: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", script]).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{script}");
    Ok(())
}

/// Times of one measurement.
struct Series {
    name: &'static str,
    times: Vec<Duration>,
}

impl Series {
    fn new(name: &'static str) -> Self {
        Self { name, times: Vec::new() }
    }

    fn text(&self) -> String {
        let mut times: Vec<_> = self.times.iter().map(Duration::as_micros).collect();
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1));
        match (at(50), at(99)) {
            (Some(median), Some(late)) => format!("{median} ({late})"),
            _ => "not installed".to_owned(),
        }
    }
}

struct Bench {
    aril: PathBuf,
    /// Path of aril-cni, beside aril.
    own: PathBuf,
    others: PathBuf,
    netavark: PathBuf,
    bundle: PathBuf,
}

impl Bench {
    fn prepare() -> Result<Self> {
        let aril = Runtime::under_test().path.clone();
        let place = |name, or: &str| PathBuf::from(std::env::var_os(name).unwrap_or(or.into()));
        let bundle = PathBuf::from("/run/bundle");
        fs::create_dir(&bundle)?;
        let here =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/busybox").canonicalize()?;
        let mut config: Value = serde_json::from_slice(&fs::read(here.join("config.json"))?)?;
        config["process"]["args"] = json!([NOW]);
        let mounts = config["mounts"].as_array_mut().context("mounts")?;
        mounts.push(json!({"destination": NOW, "type": "bind", "source": std::env::current_exe()?,
                           "options": ["bind", "ro"]}));
        config["process"]["terminal"] = json!(false);
        config["root"]["path"] = json!(here.join("rootfs"));
        fs::write(bundle.join("config.json"), config.to_string())?;
        let own = aril.with_file_name("aril-cni");
        ensure!(own.is_file(), "aril-cni is not beside {}", aril.display());
        let (others, netavark) =
            (place("CNI_PLUGINS", "/usr/lib/cni"), place("NETAVARK", "/usr/lib/podman/netavark"));
        Ok(Self { aril, own, others, netavark, bundle })
    }

    fn starts(&self, count: usize, rest: Option<Duration>) -> Result<Vec<Series>> {
        let kinds = [None, Some(0), Some(1), Some(32)];
        let mut starts = [
            "start, network none",
            "start, bridge",
            "start, bridge, one port",
            "start, bridge, 32 ports",
        ]
        .map(Series::new);
        let mut ends =
            ["end, network none", "end, bridge", "end, bridge, one port", "end, bridge, 32 ports"]
                .map(Series::new);
        for round in 0..=count {
            for (kind, ports) in kinds.into_iter().enumerate() {
                rest.iter().for_each(|rest| std::thread::sleep(*rest));
                let (start, end) = self.run(&format!("r{round}"), ports)?;
                // The first start creates the bridge and the table.
                if round > 0 {
                    starts[kind].times.push(start);
                    ends[kind].times.push(end);
                }
            }
        }
        Ok(starts.into_iter().chain(ends).collect())
    }

    fn attachments(&self, count: usize, rest: Option<Duration>) -> Result<Vec<Series>> {
        let mut all = [
            "aril-cni ADD, one port",
            "CNI bridge + host-local + portmap ADD, one port",
            "netavark setup, one port",
        ]
        .map(Series::new);
        for round in 0..=count {
            let id = format!("r{round}");
            for (series, attach) in all.iter_mut().zip([Self::own, Self::others, Self::netavark]) {
                sh(&format!("ip netns add {id}"))?;
                rest.iter().for_each(|rest| std::thread::sleep(*rest));
                let took = attach(self, &id)?;
                sh(&format!("ip netns del {id}"))?;
                if round > 0 {
                    series.times.extend(took);
                }
            }
        }
        Ok(all.into())
    }

    /// Measures a `run`: the time until the program runs, and the rest.
    fn run(&self, id: &str, ports: Option<u16>) -> Result<(Duration, Duration)> {
        let mut command = Command::new(&self.aril);
        command.args(["--root", "/run/state", "run", "--bundle"]).arg(&self.bundle);
        command.args(["--network", if ports.is_some() { "bridge" } else { "none" }]);
        for port in 0..ports.unwrap_or_default() {
            // Every second port, so that Aril does not join them to a range.
            command.args(["--publish", &format!("{}:80", 9000 + 2 * port)]);
        }
        let before = now();
        let (took, printed) = time(command.arg(id).stdin(Stdio::null()), None)?;
        let printed = String::from_utf8(printed)?.trim().parse().context("the container's time")?;
        let start = Duration::from_nanos(printed).saturating_sub(before);
        Ok((start, took.saturating_sub(start)))
    }

    fn plugin(&self, program: &Path, command: &str, id: &str) -> Command {
        let mut plugin = Command::new(program);
        let namespace = format!("/run/netns/{id}");
        plugin.envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")]);
        plugin.env("CNI_NETNS", namespace).env("CNI_PATH", &self.others);
        plugin
    }

    fn own(&self, id: &str) -> Result<Option<Duration>> {
        let config = own_config(&json!([{"hostPort": 8080, "containerPort": 80}]));
        let (took, _) = time(&mut self.plugin(&self.own, "ADD", id), Some(&config))?;
        time(&mut self.plugin(&self.own, "DEL", id), Some(&config))?;
        Ok(Some(took))
    }

    /// Runs the plugins one after the other, as an engine does.
    fn others(&self, id: &str) -> Result<Option<Duration>> {
        let [bridge, portmap] = ["bridge", "portmap"].map(|name| self.others.join(name));
        if !bridge.is_file() {
            return Ok(None);
        }
        let config = others_config();
        let ports = json!({"portMappings": [
            {"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]});
        let (first, result) = time(&mut self.plugin(&bridge, "ADD", id), Some(&config))?;
        let chained = json!({
            "cniVersion": "1.0.0", "name": "other", "type": "portmap",
            "runtimeConfig": ports, "prevResult": serde_json::from_slice::<Value>(&result)?
        });
        let (second, _) = time(&mut self.plugin(&portmap, "ADD", id), Some(&chained))?;
        time(&mut self.plugin(&portmap, "DEL", id), Some(&chained))?;
        time(&mut self.plugin(&bridge, "DEL", id), Some(&config))?;
        Ok(Some(first + second))
    }

    fn netavark(&self, id: &str) -> Result<Option<Duration>> {
        if !self.netavark.is_file() {
            return Ok(None);
        }
        let config = json!({
            "container_id": format!("{id:0>64}"), "container_name": id,
            "port_mappings": [{"container_port": 80, "host_ip": "", "host_port": 8082,
                               "protocol": "tcp", "range": 1}],
            "networks": {"pod": {"static_ips": ["10.93.0.9"], "interface_name": "eth0"}},
            "network_info": {"pod": {
                "name": "pod", "id": format!("{:0>64}", "1"), "driver": "bridge",
                "network_interface": "pod0", "internal": false, "ipv6_enabled": false,
                "subnets": [{"subnet": "10.93.0.0/16", "gateway": "10.93.0.1"}],
                "dns_enabled": false, "ipam_options": {"driver": "host-local"}
            }}
        });
        let call = |verb| {
            let mut command = Command::new(&self.netavark);
            command.args(["--config", "/run/netavark", verb, &format!("/run/netns/{id}")]);
            time(&mut command, Some(&config))
        };
        fs::create_dir_all("/run/netavark")?;
        let (took, _) = call("setup")?;
        call("teardown")?;
        Ok(Some(took))
    }

    /// Measures a pair of containers on Aril's network and on the plugins': medians of interleaved rounds.
    fn traffic(&self) -> Result<()> {
        let bridge = self.others.join("bridge");
        let (own, others) = (own_config(&json!([])), others_config());
        let mut pairs = Vec::new();
        for (name, program, config) in
            [("aril-cni", &self.own, &own), ("CNI bridge", &bridge, &others)]
        {
            if !program.is_file() {
                println!("{name}: not installed");
                continue;
            }
            let mut ends = Vec::new();
            for side in ["a", "b"] {
                let id = format!("{}-{side}", pairs.len());
                sh(&format!("ip netns add {id}"))?;
                let (_, result) = time(&mut self.plugin(program, "ADD", &id), Some(config))?;
                let result: Value = serde_json::from_slice(&result)?;
                let text = result["ips"][0]["address"].as_str().context("an address")?;
                let address: IpAddr = text.split('/').next().unwrap_or_default().parse()?;
                ends.push((PathBuf::from(format!("/run/netns/{id}")), address));
            }
            pairs.push((name, ends));
        }
        println!(
            "\n| median of {PASSES} | container to container | host to container |\n|---|---:|---:|"
        );
        let host = PathBuf::from("/proc/self/ns/net");
        for (unit, measure) in
            [("Gbit/s", throughput as Passage), ("connections/s", connections as Passage)]
        {
            let mut found = vec![[Vec::new(), Vec::new()]; pairs.len()];
            for _ in 0..PASSES {
                for ((_, ends), found) in pairs.iter().zip(&mut found) {
                    let (server, address) = &ends[1];
                    found[0].push(measure(&ends[0].0, server, *address)?);
                    found[1].push(measure(&host, server, *address)?);
                }
            }
            for ((name, _), found) in pairs.iter().zip(found) {
                let [between, from_host] = found.map(median);
                println!("| {name}, {unit} | {between:.1} | {from_host:.1} |");
            }
        }
        Ok(())
    }

    /// Measures if an ADD depends on the number of containers and published ports.
    fn crowd(&self) -> Result<()> {
        println!("\n| aril-cni ADD, one port, with | µs, median (p99) |\n|---|---:|");
        let sample = |name| {
            let mut series = Series::new(name);
            for round in 0..21 {
                let id = format!("s{round}");
                sh(&format!("ip netns add {id}"))?;
                series.times.extend(self.own(&id)?);
                sh(&format!("ip netns del {id}"))?;
            }
            println!("| {name} | {} |", series.text());
            anyhow::Ok(())
        };
        sample("no other container on the network")?;
        let none = own_config(&json!([]));
        for number in 0..CROWD {
            sh(&format!("ip netns add n{number}"))?;
            time(&mut self.plugin(&self.own, "ADD", &format!("n{number}")), Some(&none))?;
        }
        sample("999 others")?;
        let ports = (0..PORTS).map(|n| json!({"hostPort": 20_000 + n, "containerPort": 80}));
        let many = own_config(&json!(ports.collect::<Vec<_>>()));
        time(&mut self.plugin(&self.own, "DEL", "n0"), Some(&none))?;
        time(&mut self.plugin(&self.own, "ADD", "n0"), Some(&many))?;
        sample("999 others and 10,000 published ports")
    }
}

fn own_config(ports: &Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "own", "type": "aril-cni",
        "ipam": {"ranges": [[{"subnet": "10.91.0.0/16"}]]}, "runtimeConfig": {"portMappings": ports}
    })
}

fn others_config() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "other", "type": "bridge", "bridge": "other0",
        "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.92.0.0/16"}]],
                 "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/host-local"}
    })
}

/// Measures traffic from a client's namespace to a server's, at the server's address.
type Passage = fn(&Path, &Path, IpAddr) -> Result<f64>;

/// Duration of one measurement of traffic.
const WHILE: Duration = Duration::from_secs(1);
const PASSES: usize = 5;
const PORT: u16 = 5001;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Runs `body` in a network namespace, on a new thread.
fn within<T: Send + 'static>(
    namespace: &Path,
    body: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<std::thread::JoinHandle<Result<T>>> {
    let file = fs::File::open(namespace).with_context(|| namespace.display().to_string())?;
    Ok(std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
        body()
    }))
}

fn joined<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))?
}

fn listener(server: &Path) -> Result<TcpListener> {
    joined(within(server, || Ok(TcpListener::bind(("0.0.0.0", PORT))?))?)
}

/// Throughput of one stream, in Gbit/s, as the server counts it.
fn throughput(client: &Path, server: &Path, to: IpAddr) -> Result<f64> {
    let listener = listener(server)?;
    let sender = within(client, move || {
        let mut stream = TcpStream::connect((to, PORT))?;
        let (block, end) = (vec![0; 128 * 1024], Instant::now() + WHILE);
        while Instant::now() < end {
            stream.write_all(&block)?;
        }
        Ok(())
    })?;
    let (mut stream, _) = listener.accept()?;
    let (start, mut block, mut bytes) = (Instant::now(), vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut block)? {
            0 => break,
            n => bytes += n,
        }
    }
    let rate = bytes as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64();
    joined(sender)?;
    Ok(rate)
}

/// Connections per second, one after the other: connect, send a byte, closed by the server.
fn connections(client: &Path, server: &Path, to: IpAddr) -> Result<f64> {
    let listener = listener(server)?;
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    let asking = within(client, move || {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < WHILE {
            let mut stream = TcpStream::connect((to, PORT))?;
            stream.read_to_end(&mut Vec::new())?;
            count += 1;
        }
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        // The server waits for one more connection.
        told.store(true, Ordering::SeqCst);
        TcpStream::connect((to, PORT))?;
        Ok(rate)
    })?;
    loop {
        let (mut stream, _) = listener.accept()?;
        if over.load(Ordering::SeqCst) {
            break;
        }
        stream.write_all(b"x")?;
    }
    joined(asking)
}

/// Time from fork to exit, and stdout.
fn time(command: &mut Command, input: Option<&Value>) -> Result<(Duration, Vec<u8>)> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let start = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok((took, output.stdout))
}
