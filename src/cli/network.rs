//! The verb `network`, and the options of `create` and `run` that connect a container to a network.

use clap::Arg;

use super::command::{Command, Format};
use super::given::{Given, usage};
use super::output;
use super::table::{format, format_flag, switch, value, values};
use crate::error::Result;
use crate::network::address;
use crate::network::definition::{Network, NetworkOptions};
use crate::network::definition::{effect, store};
use crate::spec::Extensions;

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Create(Box<NetworkOptions>),
    List { format: Format, quiet: bool },
    Inspect(Vec<String>),
    Remove(Vec<String>),
}

pub fn flags() -> Vec<Arg> {
    vec![
        value("driver", "DRIVER", "Kind of network: bridge, routed or vxlan [bridge]"),
        values("subnet", "SUBNET", "Subnet, such as 10.1.0.0/24; once for IPv4, once for IPv6"),
        values(
            "gateway",
            "ADDRESS",
            "Address of the host on the network [the first of the subnet]",
        ),
        values("range", "SUBNET", "Assign addresses of this part of the subnet only"),
        value("mtu", "BYTES", "Maximum size of a packet [1500, vxlan 1450]"),
        switch("internal", "Connect containers to each other and the host only"),
        switch("open", "Accept connections from other open networks"),
        values("route", "SUBNET=ADDRESS", "Add a route to a subnet of another host"),
        value("vni", "N", "VXLAN network identifier"),
        values("peer", "ADDRESS", "Address of another host of the VXLAN network"),
        format_flag(),
        switch("quiet", "Print names only").short('q'),
    ]
}

/// Parses the command `network`.
///
/// # Errors
///
/// The action is unknown, or has wrong operands or flags.
pub fn read(given: &Given, mut operands: Vec<String>) -> Result<Command> {
    let action = operands.remove(0);
    let (least, most) = match action.as_str() {
        "ls" => (0, 0),
        "create" => (1, 1),
        "inspect" | "rm" => (1, usize::MAX),
        other => {
            return Err(usage(format!("unknown action {other:?} of network"))
                .hint("the actions are create, ls, inspect and rm"));
        }
    };
    if !(least..=most).contains(&operands.len()) {
        let wanted = ["no name", "one name", "at least one name"][least + usize::from(most > 1)];
        return Err(usage(format!("aril network {action} needs {wanted}")));
    }
    Ok(Command::Network(match action.as_str() {
        "create" => Action::Create(Box::new(NetworkOptions {
            name: operands.remove(0),
            driver: given.text("driver")?,
            subnets: given.texts("subnet")?,
            gateways: given.texts("gateway")?,
            ranges: given.texts("range")?,
            mtu: given.number("mtu")?,
            internal: given.switch("internal"),
            open: given.switch("open"),
            routes: given.texts("route")?,
            vni: given.number("vni")?,
            peers: given.texts("peer")?,
        })),
        "ls" => Action::List { format: format(given)?, quiet: given.switch("quiet") },
        "inspect" => Action::Inspect(operands),
        _ => Action::Remove(operands),
    }))
}

/// Runs an action on networks and prints its result.
///
/// # Errors
///
/// The action fails, or stdout cannot be written.
pub fn act(action: &Action) -> Result<()> {
    match action {
        Action::Create(wanted) => output::print(&format!("{}\n", effect::create(wanted)?.name)),
        Action::List { format, quiet } => list(*format, *quiet),
        Action::Inspect(names) => inspect(names),
        Action::Remove(names) => names.iter().try_for_each(|name| {
            effect::remove(name)?;
            output::print(&format!("{name}\n"))
        }),
    }
}

fn list(format: Format, quiet: bool) -> Result<()> {
    let networks = store::all()?;
    if quiet {
        return output::print(
            &networks.iter().map(|n| format!("{}\n", n.name)).collect::<String>(),
        );
    }
    match format {
        Format::Json => output::print(&(output::compact(&networks) + "\n")),
        Format::Table => {
            let mut text = table(&networks)?;
            text.push('\n');
            output::print(&text)
        }
    }
}

/// Formats the table. Columns are as wide as their content.
fn table(networks: &[Network]) -> Result<String> {
    let head = ["NAME", "DRIVER", "SUBNET", "CONTAINERS"].map(str::to_owned);
    let rows = networks.iter().map(|network| {
        let subnets: Vec<_> = network.pools().map(|p| p.subnet.to_string()).collect();
        let leases = address::of_network(&network.name)?.len().to_string();
        let driver = network.driver.name().to_owned();
        Ok([network.name.clone(), driver, subnets.join(","), leases])
    });
    let rows = std::iter::once(Ok(head)).chain(rows).collect::<Result<Vec<_>>>()?;
    let width = |n: usize| rows.iter().map(|row| row[n].len()).max().unwrap_or(0) + 2;
    let (name, driver, subnet) = (width(0), width(1), width(2));
    let line = |[a, b, c, d]: &[String; 4]| format!("{a:<name$}{b:<driver$}{c:<subnet$}{d}");
    Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    network: &'a Network,
    leases: Vec<address::Lease>,
}

fn inspect(names: &[String]) -> Result<()> {
    let networks = names.iter().map(|name| store::get(name)).collect::<Result<Vec<_>>>()?;
    let shown = networks
        .iter()
        .map(|network| Ok(Shown { network, leases: address::of_network(&network.name)? }));
    output::print(&(output::indented(&shown.collect::<Result<Vec<_>>>()?, "  ") + "\n"))
}

pub fn run_flags() -> [Arg; 8] {
    [
        values("network", "NETWORK", "Network: none, host, bridge[:NAME], container:ID or ns:PATH"),
        values("publish", "PORTS", "Publish ports: [ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]")
            .short('p'),
        switch(
            "publish-over-listener",
            "Publish a port even if a process of the host listens on it",
        ),
        values(
            "network-address",
            "ADDRESS",
            "Address of the container on the network [a free one]",
        ),
        value(
            "network-rate",
            "RATE",
            "Limit of traffic: 10mbit, or in=10mbit,out=1mbit (per second)",
        ),
        values("dns", "ADDRESS", "DNS server [those of the host]"),
        values("dns-search", "DOMAIN", "Search domain of DNS [those of the host]"),
        values("add-host", "NAME:ADDRESS", "Add a line to /etc/hosts"),
    ]
}

/// Rejects a second network: a container is attached to one.
fn one_network(mut names: Vec<String>) -> Result<Option<String>> {
    match &names[..] {
        [_, _, ..] => {
            Err(usage(format!("--network is given more than once: {}", names.join(", ")))
                .hint("a container is attached to one network"))
        }
        _ => Ok(names.pop()),
    }
}

/// Reads the network options of `create` and `run`.
///
/// # Errors
///
/// A value is not UTF-8.
pub fn extensions(given: &Given) -> Result<Extensions> {
    let joined = |name| given.texts(name).map(|texts| (!texts.is_empty()).then(|| texts.join(",")));
    Ok(Extensions {
        network: one_network(given.texts("network")?)?,
        publish_over_listener: given.switch("publish-over-listener"),
        publish: joined("publish")?,
        address: joined("network-address")?,
        rate: given.text("network-rate")?,
        dns: joined("dns")?,
        dns_search: joined("dns-search")?,
        hosts: joined("add-host")?,
        ..Extensions::default()
    })
}
