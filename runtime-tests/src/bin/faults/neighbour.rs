//! A container that runs beside the faults, on the same network and the same state root, with a port and a volume.

use std::fs;
use std::io::{Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use runtime_tests::{Container, View};

const PORT: u16 = 8090;
const TEXT: &str = "the neighbour answers";
const PATIENCE: Duration = Duration::from_secs(20);

/// Its fixture would look at the whole state root when it is dropped.
pub struct Neighbour(ManuallyDrop<Container>);

impl Neighbour {
    /// Starts the container in the state root `root`.
    pub fn start(view: View, root: &Path) -> Result<Self> {
        let words = ["busybox", "httpd", "-f", "-p", "80", "-h", "/mnt"];
        let mut container = Container::new(view).args(words);
        container.root = root.to_owned();
        container.id = "neighbour".to_owned();
        container.call(["volume", "create", "neighbour"]).ok();
        fs::write("/var/lib/aril/volumes/neighbour/data/text", TEXT).context("the volume")?;
        let port = format!("{PORT}:80");
        let flags = ["-d", "--network", "bridge", "-p", &port, "-v", "neighbour:/mnt"];
        container.run_call(&flags).ok();
        let neighbour = Self(ManuallyDrop::new(container));
        runtime_tests::container::wait_until("the neighbour", || neighbour.check().is_ok());
        Ok(neighbour)
    }

    /// Directory of the bundle.
    pub fn directory(&self) -> &Path {
        &self.0.dir
    }

    /// Fails unless the container answers at its published port with the text of its volume.
    pub fn check(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /text HTTP/1.0\r\n\r\n").context("write")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read")?;
        ensure!(answer.ends_with(TEXT), "it answers {answer:?}");
        Ok(())
    }

    pub fn end(self) {
        self.0.delete_by_force().ok();
        self.0.call(["volume", "rm", "neighbour"]).ok();
    }
}
