//! Who takes part.

use std::path::{Path, PathBuf};

use crate::command;
use crate::options::Options;
use crate::workload::Place;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Does one `run` and knows no other verb.
    Floor,
    /// Speaks runc's command line.
    Runtime,
}

pub struct Contender {
    pub name: String,
    pub path: PathBuf,
    pub kind: Kind,
    /// Where the runtime keeps its state.
    pub root: PathBuf,
}

impl Contender {
    fn new(name: &str, path: &Path, kind: Kind, place: &Place) -> Contender {
        let root = place.scratch.join("state").join(name);
        Contender { name: name.to_owned(), path: path.to_owned(), kind, root }
    }

    /// Its size on disk, in bytes.
    pub fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map(|meta| meta.len()).unwrap_or(0)
    }
}

/// Everyone who can run the bundle in this view; the others are named, with what they said.
pub fn all(options: &Options, place: &Place) -> Vec<Contender> {
    let mut all = Vec::new();
    if !options.systemd {
        all.push(Contender::new("floor", &options.floor, Kind::Floor, place));
    }
    if let Some(aril) = &options.aril {
        all.push(Contender::new("aril", aril, Kind::Runtime, place));
    }
    let peers = &options.peers;
    all.extend(peers.iter().map(|(name, path)| Contender::new(name, path, Kind::Runtime, place)));
    all.retain(|contender| works(contender, place));
    all
}

fn works(contender: &Contender, place: &Place) -> bool {
    let args = place.run(contender, "bench-probe", &place.bundle);
    let tried = command::quiet(
        &contender.path,
        &args.iter().map(String::as_str).collect::<Vec<_>>(),
        &place.scratch,
    );
    if let Err(why) = &tried {
        eprintln!("bench: {} does not take part: {why:#}", contender.name);
    }
    tried.is_ok()
}
