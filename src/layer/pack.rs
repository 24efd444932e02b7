//! Packs entries of a tree, with their contents, into a [`Sink`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use super::tar;
use super::{Entry, Form, Ids};
use crate::error::{Error, OsContext, Result};
use crate::fs::Tree;
use crate::fs::tree::{self, Found};

/// Destination of a layer. Parents come before their entries; no path comes twice.
pub trait Sink {
    /// Adds an entry. Reads all of `content`, which every file has, even an empty one.
    fn put(&mut self, path: &[u8], entry: &Entry, content: Option<&mut Content>) -> Result<()>;

    /// Records that the lower layers' entry at `path` is deleted.
    fn whiteout(&mut self, path: &[u8]) -> Result<()>;

    fn finish(&mut self) -> Result<()>;
}

/// Content of a file: exactly as many bytes as its entry says, even if the file changes in the meantime.
pub struct Content {
    file: File,
    name: String,
    left: u64,
    cut: bool,
    buffer: Vec<u8>,
}

impl Content {
    /// Returns the next bytes, and `None` after the last.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn chunk(&mut self) -> Result<Option<&[u8]>> {
        let most = self.buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(None);
        }
        let mut length = 0;
        while length < most && !self.cut {
            match self.file.read(&mut self.buffer[length..most]) {
                Ok(0) => self.cut = true,
                Ok(n) => length += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &self.name, &e)),
            }
        }
        self.buffer[length..most].fill(0);
        self.left -= most as u64;
        Ok(Some(&self.buffer[..most]))
    }
}

/// Writes entries of a tree to a sink.
pub struct Packer<'a> {
    tree: &'a Tree,
    ids: &'a Ids,
    sink: &'a mut dyn Sink,
    /// Path of the first name of a file that has several names, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    /// Entries that no layer can hold, as text for the user.
    pub skipped: Vec<String>,
    /// Files that changed while they were read.
    changed: Vec<String>,
    buffer: Vec<u8>,
}

impl<'a> Packer<'a> {
    /// Packs entries of `tree` into `sink`.
    pub fn new(tree: &'a Tree, ids: &'a Ids, sink: &'a mut dyn Sink) -> Self {
        let (links, skipped, changed) = Default::default();
        Self { tree, ids, sink, links, skipped, changed, buffer: vec![0; 128 << 10] }
    }

    /// Adds an entry. A socket is skipped and noted in `skipped`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the sink fails.
    pub fn add(&mut self, path: &[u8], found: &Found) -> Result<()> {
        let mut entry = Entry::read(self.tree, path, found, self.ids)?;
        if entry.form == Form::Socket {
            self.skipped.push(format!("{} is a socket", self.tree.shown(path)));
            return Ok(());
        }
        if found.stat.st_nlink > 1 && entry.form != Form::Directory {
            let key = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                entry.form = Form::Hardlink(first.clone());
                entry.size = 0;
            } else {
                self.links.insert(key, path.to_owned());
            }
        }
        if entry.form != Form::File {
            return self.sink.put(path, &entry, None);
        }
        self.add_file(path, found, &entry)
    }

    fn add_file(&mut self, path: &[u8], found: &Found, entry: &Entry) -> Result<()> {
        let name = self.tree.shown(path);
        let mut content = Content {
            file: found.open().os("open", &name)?,
            left: entry.size,
            cut: false,
            buffer: std::mem::take(&mut self.buffer),
            name,
        };
        self.sink.put(path, entry, Some(&mut content))?;
        let now = nix::sys::stat::fstat(&content.file).os("fstat", &content.name)?;
        let written =
            |stat: &nix::sys::stat::FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if content.cut || written(&now) != written(&found.stat) {
            self.changed.push(content.name);
        }
        self.buffer = content.buffer;
        Ok(())
    }

    /// Adds a whiteout.
    ///
    /// # Errors
    ///
    /// The sink fails.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        self.sink.whiteout(path)
    }

    /// Completes the layer. It is well-formed, but an error if a file changed while it was read.
    ///
    /// # Errors
    ///
    /// A file changed while it was read, or the sink fails.
    pub fn finish(self) -> Result<Vec<String>> {
        self.sink.finish()?;
        match self.changed.as_slice() {
            [] => Ok(self.skipped),
            [one] => Err(Error::state(format!("{one} changed while it was read"))),
            [one, ..] => {
                let many = self.changed.len();
                Err(Error::state(format!("{many} files changed while they were read, {one} first")))
            }
        }
        .map_err(|e| {
            e.hint("leave out --pause=false: the container is then paused while it is read")
        })
    }
}

/// Tar archive of an OCI layer, or of a whole tree.
pub struct Archive<'w> {
    writer: tar::Writer<'w>,
    /// Name of the archive, for errors.
    name: String,
    /// True for an OCI layer, in which the prefix `.wh.` marks a whiteout.
    layer: bool,
}

impl<'w> Archive<'w> {
    /// Begins an archive of a whole tree.
    pub fn new(to: &'w mut dyn std::io::Write, name: impl Into<String>) -> Self {
        Self { writer: tar::Writer::new(to), name: name.into(), layer: false }
    }

    /// Begins an archive of an OCI layer.
    pub fn layer(to: &'w mut dyn std::io::Write, name: impl Into<String>) -> Self {
        Self { layer: true, ..Self::new(to, name) }
    }

    fn refuse_whiteout(&self, path: &[u8]) -> Result<()> {
        if !self.layer || !tree::split(path).1.starts_with(WHITEOUT) {
            return Ok(());
        }
        let path = tree::shown(path);
        Err(Error::system(format!(
            "/{path}: in a layer archive the prefix .wh. marks a deleted file"
        ))
        .hint("rename the file, or commit to a directory, which allows any name"))
    }
}

const WHITEOUT: &[u8] = b".wh.";

/// Path in the archive. A directory's ends with a slash; the root's is `./`.
fn archived(path: &[u8], form: &Form) -> Vec<u8> {
    match (path, form) {
        (b"", _) => b"./".to_vec(),
        (path, Form::Directory) => [path, b"/"].concat(),
        (path, _) => path.to_owned(),
    }
}

impl Sink for Archive<'_> {
    fn put(&mut self, path: &[u8], entry: &Entry, content: Option<&mut Content>) -> Result<()> {
        self.refuse_whiteout(path)?;
        self.writer.entry(&archived(path, &entry.form), entry).os("write", &self.name)?;
        let Some(content) = content else { return Ok(()) };
        while let Some(bytes) = content.chunk()? {
            self.writer.data(bytes).os("write", &self.name)?;
        }
        self.writer.padding(entry.size).os("write", &self.name)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        self.refuse_whiteout(path)?;
        let (directory, name) = tree::split(path);
        let path = tree::join(directory, &[WHITEOUT, name].concat());
        let (form, mtime, xattrs) = (Form::File, (0, 0), Vec::new());
        let entry = Entry { form, mode: 0o600, uid: 0, gid: 0, size: 0, mtime, xattrs };
        self.writer.entry(&path, &entry).os("write", &self.name)
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.finish().os("write", &self.name)
    }
}
