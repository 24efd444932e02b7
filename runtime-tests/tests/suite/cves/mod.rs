//! Every published escape from a container runtime, tried. docs/cves.md says which test is whose, and
//! which of our lines each of them saw removed.

mod devices;
mod identity;
mod inherited;
mod limits;
mod paths;
mod proc;
mod reach;

use std::fs;
use std::path::Path;

use runtime_tests::Container;

const SECRET: &str = "canary\n";

fn writable(c: Container) -> Container {
    c.edit(|spec| spec["root"]["readonly"] = false.into())
}

/// A directory beside the rootfs, with a file in it: what an escape would reach.
struct Canary {
    dir: std::path::PathBuf,
    before: Vec<String>,
}

impl Canary {
    fn of(c: &Container) -> Self {
        let dir = c.directory("canary");
        fs::write(dir.join("file"), SECRET).expect("a file");
        Self { before: look(&dir), dir }
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.join("file")
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(fs::read_to_string(self.file()).expect("the canary"), SECRET);
        assert_eq!(look(&self.dir), self.before);
    }
}

/// Names, kinds, modes and owners of what is in the directory.
fn look(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let entry = |entry: fs::DirEntry| {
        let m = entry.metadata().expect("metadata");
        format!("{:?} {:o} {}:{} {}", entry.file_name(), m.mode(), m.uid(), m.gid(), m.size())
    };
    let mut all: Vec<_> = fs::read_dir(dir).expect("a directory").flatten().map(entry).collect();
    all.sort();
    all
}
