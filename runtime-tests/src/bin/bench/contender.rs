//! Contenders: the programs that are measured side by side.

use std::path::{Path, PathBuf};

use crate::command;
use crate::options::Options;
use crate::workload::Setup;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Program `floor`: does one `run` and has no other verb.
    Floor,
    /// Runtime with runc's command line.
    Runtime,
}

pub struct Contender {
    pub name: String,
    pub path: PathBuf,
    pub kind: Kind,
    /// State root of the runtime.
    pub root: PathBuf,
}

impl Contender {
    fn new(name: &str, path: &Path, kind: Kind, setup: &Setup) -> Contender {
        let root = setup.scratch.join("state").join(name);
        Contender { name: name.to_owned(), path: path.to_owned(), kind, root }
    }

    /// Size on disk, in bytes.
    pub fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map(|meta| meta.len()).unwrap_or(0)
    }
}

/// All contenders that can run the bundle in this view. Prints the others with their errors.
pub fn all(options: &Options, setup: &Setup) -> Vec<Contender> {
    let mut all = Vec::new();
    if !options.systemd {
        all.push(Contender::new("floor", &options.floor, Kind::Floor, setup));
    }
    if let Some(aril) = &options.aril {
        all.push(Contender::new("aril", aril, Kind::Runtime, setup));
    }
    let peers = &options.peers;
    all.extend(peers.iter().map(|(name, path)| Contender::new(name, path, Kind::Runtime, setup)));
    all.retain(|contender| works(contender, setup));
    all
}

fn works(contender: &Contender, setup: &Setup) -> bool {
    let args = setup.run(contender, "bench-probe", &setup.bundle);
    let tried = command::quiet(
        &contender.path,
        &args.iter().map(String::as_str).collect::<Vec<_>>(),
        &setup.scratch,
    );
    if let Err(why) = &tried {
        eprintln!("bench: {} does not take part: {why:#}", contender.name);
    }
    tried.is_ok()
}
