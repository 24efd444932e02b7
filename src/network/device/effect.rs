//! Moves network devices by rtnetlink(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;

use super::Device;
use crate::error::{Context, Error, OsContext, Result};
use crate::network::link;
use crate::sys::netlink::{Batch, ROUTE, Refusal, Reply, Socket, integer};
use crate::sys::{self, Errno};

/// Address of a device as the kernel reports it, in the form in which it is added again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    /// Attributes by kind, without those that the kernel or the old device sets.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Devices that were moved into a container. Holds the container's network namespace open: the kernel would otherwise
/// end it with its last process, and destroy its virtual devices.
#[derive(Debug)]
pub struct MovedDevices {
    namespace: OwnedFd,
    taken: Vec<MovedDevice>,
}

/// A device that was moved into the container.
#[derive(Debug)]
struct MovedDevice {
    /// The move in the opposite direction.
    back: Device,
    was_up: bool,
}

impl MovedDevices {
    /// An empty list for the network namespace of an open file.
    pub fn into(namespace: impl Into<OwnedFd>) -> Self {
        Self { namespace: namespace.into(), taken: Vec::new() }
    }

    /// Moves devices into the container, up to the first that fails.
    ///
    /// # Errors
    ///
    /// A device does not exist or cannot be moved. Devices before it have been moved.
    pub fn take(&mut self, devices: &[Device]) -> Result<()> {
        let mut here = Socket::open(ROUTE).os("socket", "AF_NETLINK")?;
        let mut there = socket_in(self.namespace.as_fd())?;
        devices.iter().try_for_each(|device| {
            let taken = move_one(device, &mut here, &mut there, self.namespace.as_fd(), true)
                .context(|| format!("netDevices: {device}"))?;
            self.taken.push(taken);
            Ok(())
        })
    }

    /// Moves all devices back to the host, for a container whose start failed.
    ///
    /// # Errors
    ///
    /// A device cannot be moved.
    pub fn move_back(&self) -> Result<()> {
        let own = "/proc/self/ns/net";
        let home = sys::open::open(own, OFlag::O_RDONLY).os("open", own)?;
        let mut here = Socket::open(ROUTE).os("socket", "AF_NETLINK")?;
        let mut there = socket_in(self.namespace.as_fd())?;
        self.taken.iter().rev().try_for_each(|MovedDevice { back, was_up }| {
            move_one(back, &mut there, &mut here, home.as_fd(), *was_up).map(drop)
        })
    }
}

/// Opens a netlink socket in the namespace. The process, which has one thread, enters the namespace for this call
/// only.
fn socket_in(namespace: BorrowedFd<'_>) -> Result<Socket> {
    let own = "/proc/self/ns/net";
    let back = sys::open::open(own, OFlag::O_RDONLY).os("open", own)?;
    sys::namespace::setns(namespace, libc::CLONE_NEWNET)
        .os("setns", "the container's network namespace")?;
    let socket = Socket::open(ROUTE).os("socket", "AF_NETLINK");
    sys::namespace::setns(back.as_fd(), libc::CLONE_NEWNET).os("setns", own)?;
    socket
}

fn move_one(
    device: &Device,
    here: &mut Socket,
    there: &mut Socket,
    namespace: BorrowedFd<'_>,
    set_up: bool,
) -> Result<MovedDevice> {
    let refused = |call: &'static str| {
        let name = device.host.clone();
        move |refusal: Refusal| error(call, &name, refusal)
    };
    let Some(found) = link::find(here, &device.host).map_err(refused("get link"))? else {
        return Err(Error::os("get link", &device.host, Errno::ENODEV));
    };
    let addresses = addresses(here, found.index).map_err(refused("get addresses"))?;
    let before = link::names(there).map_err(refused("list links"))?;
    // A device that keeps its name must find it free in the container.
    if before.contains(&device.name) {
        return Err(Error::config(format!(
            "a network device {:?} already exists in the container",
            device.name
        ))
        .hint("give the device another name in linux.netDevices, or a template such as eth%d"));
    }
    let mut batch = Batch::new();
    link::down(&mut batch, found.index);
    link::move_to(&mut batch, found.index, &device.name, namespace);
    here.transact(batch).map_err(refused("move link"))?;

    let after = link::names(there).map_err(refused("list links"))?;
    let name = match device.name.contains('%') {
        false => &device.name,
        true => after.iter().find(|name| !before.contains(name)).ok_or_else(|| {
            Error::system("the moved device is not in the container's network namespace")
        })?,
    };
    let moved = link::find(there, name).map_err(refused("get link"))?;
    let index = moved.ok_or_else(|| Error::os("get link", name, Errno::ENODEV))?.index;
    let mut batch = Batch::new();
    for address in &addresses {
        address.add(&mut batch, index);
    }
    if set_up {
        link::up(&mut batch, link::LinkRef::Index(index));
    }
    if !batch.is_empty() {
        there.transact(batch).map_err(refused("add addresses and bring up"))?;
    }
    let back = Device { host: name.clone(), name: device.host.clone() };
    Ok(MovedDevice { back, was_up: found.up })
}

fn error(call: &'static str, name: &str, refusal: Refusal) -> Error {
    let error = Error::os(call, name, refusal.errno);
    if refusal.text.is_empty() { error } else { error.hint(format!("kernel: {}", refusal.text)) }
}

const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;

/// `IFA_*`.
const FLAGS: u16 = 8;
const LABEL: u16 = 3;
const CACHE_INFO: u16 = 6;
const PERMANENT: u32 = 0x80;
/// `RT_SCOPE_UNIVERSE`
const EVERYWHERE: u8 = 0;

/// Permanent addresses of global scope on the device, of every family.
fn addresses(socket: &mut Socket, index: u32) -> std::result::Result<Vec<Address>, Refusal> {
    let mut batch = Batch::new();
    batch.request(GETADDR, libc::NLM_F_DUMP as u16, &[0; 8]);
    let mut found = Vec::new();
    socket.ask(batch, |reply| found.extend(Address::read(reply, index)))?;
    Ok(found)
}

impl Address {
    fn read(reply: &Reply<'_>, device: u32) -> Option<Self> {
        let &[family, prefix, flags, scope, ..] = reply.payload else { return None };
        let index = integer(reply.payload.get(4..8)?);
        // The header has the lower eight flags, the attribute has all of them.
        let flags = reply
            .attributes(8)
            .find(|(kind, _)| *kind == FLAGS)
            .map_or(flags.into(), |(_, bytes)| integer(bytes));
        if reply.kind != NEWADDR || index != device || scope != EVERYWHERE || flags & PERMANENT == 0
        {
            return None;
        }
        let kept = |kind: &u16| !matches!(*kind, FLAGS | LABEL | CACHE_INFO);
        let attributes = reply.attributes(8).filter(|(kind, _)| kept(kind));
        let attributes = attributes.map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
        Some(Self { family, prefix, attributes })
    }

    fn add(&self, batch: &mut Batch, index: u32) {
        let mut header = [self.family, self.prefix, 0, EVERYWHERE, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        batch.request(NEWADDR, flags, &header);
        for (kind, bytes) in &self.attributes {
            batch.put(*kind, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_types, reason = "tests make devices with ip(8)")]

    use std::fs::File;
    use std::process::Command;

    use runtime_tests::skip;

    use super::*;
    use crate::sys::pidfd::Ended;
    use crate::sys::spawn::in_child;

    fn ip(args: &str) -> String {
        let out = Command::new("ip").args(args.split(' ')).output().expect("iproute2");
        assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    }

    /// Output of `ip addr show`, which is empty while something changes, such as the state of an IPv6 address.
    fn shown(device: &str) -> String {
        let tries = (0..100).map(|_| ip(&format!("addr show dev {device}")));
        tries.into_iter().find(|text| !text.is_empty()).expect("the device")
    }

    /// Runs `body` in a network namespace with devices, with a second namespace to move them to.
    fn between(body: impl FnOnce(BorrowedFd<'_>)) {
        if !skip::is_root() {
            return;
        }
        let end = in_child(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            let there = File::open("/proc/thread-self/ns/net").unwrap();
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            ip("link add eth7 type veth peer name far");
            // `body` may enter the other namespace and leave this one without a process: without this file the kernel
            // would destroy this namespace, and with "far" its peer.
            let _home = File::open("/proc/thread-self/ns/net").unwrap();
            body(there.as_fd());
        });
        assert_eq!(end, Ended::Exited(0));
    }

    fn move_all(devices: &[Device], namespace: BorrowedFd<'_>) -> Result<MovedDevices> {
        let mut moved = MovedDevices::into(namespace.try_clone_to_owned().unwrap());
        moved.take(devices).map(|()| moved)
    }

    fn device(host: &str, name: &str) -> Device {
        Device { host: host.into(), name: name.into() }
    }

    #[test]
    fn permanent_addresses_move_with_the_device() {
        between(|there| {
            ip("link set eth7 mtu 1400 up");
            ip("addr add 10.7.0.2/24 dev eth7");
            ip("addr add fd07::2/64 dev eth7 nodad");
            ip("addr add 10.8.0.2/24 dev eth7 valid_lft 1000 preferred_lft 1000");
            ip("addr add 169.254.7.7/16 scope link dev eth7");
            move_all(&[device("eth7", "inner")], there).unwrap();
            assert!(!ip("link").contains("eth7"));
            sys::namespace::setns(there, libc::CLONE_NEWNET).unwrap();
            let shown = shown("inner");
            for (text, there) in [
                ("mtu 1400", true),
                (",UP", true),
                ("10.7.0.2/24", true),
                ("fd07::2/64", true),
                ("10.8.0.2", false),
                ("169.254.7.7", false),
            ] {
                assert_eq!(shown.contains(text), there, "{text}: {shown}");
            }
        });
    }

    #[test]
    fn a_name_in_use_is_refused_and_a_template_is_numbered() {
        between(|there| {
            let taken = move_all(&[device("eth7", "lo")], there).unwrap_err().to_string();
            assert!(taken.contains("\"lo\" already exists"), "{taken}");
            assert!(ip("link").contains("eth7"), "it stayed");
            move_all(&[device("eth7", "net%d"), device("far", "net%d")], there).unwrap();
            sys::namespace::setns(there, libc::CLONE_NEWNET).unwrap();
            let shown = ip("link");
            assert!(shown.contains("net0") && shown.contains("net1"), "{shown}");
        });
    }

    #[test]
    fn devices_move_back_with_their_name_and_state() {
        between(|there| {
            ip("link set eth7 up");
            ip("addr add 10.7.0.2/24 dev eth7");
            let mut moved = MovedDevices::into(there.try_clone_to_owned().unwrap());
            let devices = [device("eth7", "net%d"), device("far", "a"), device("eth8", "b")];
            assert!(moved.take(&devices).is_err(), "there is no eth8");
            assert!(!ip("link").contains("eth7"));
            moved.move_back().unwrap();
            let shown = ip("addr show");
            for text in
                ["eth7@far: <NO-CARRIER", "inet 10.7.0.2/24", "far@eth7: <BROADCAST,MULTICAST>"]
            {
                assert!(shown.contains(text), "{text}: {shown}");
            }
        });
    }

    #[test]
    fn a_missing_device_is_named() {
        between(|there| {
            let text = move_all(&[device("eth8", "eth8")], there).unwrap_err().to_string();
            assert_eq!(
                text,
                "netDevices: move network device eth8 into the container: get link eth8: \
                 no such device"
            );
        });
    }
}
