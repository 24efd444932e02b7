//! Writes a tar archive: POSIX.1-2001 (pax), the format of OCI layers.
//!
//! A pax record before the header holds only what does not fit the old header: a path of more than 100 bytes, a large
//! size or ID, a fraction of a second, extended attributes (`SCHILY.xattr.NAME`, the key that today's tar programs
//! use). The same entries always produce the same bytes.

use std::io::{self, Write};

use super::{Entry, Form};

const BLOCK: usize = 512;

/// Maximum length of a path in the old header, in bytes.
const NAME: usize = 100;

/// Largest ID, and largest size or time, in the octal digits of the old header.
const SHORT: u64 = 0o7777777;
const LONG: u64 = 0o77777777777;

/// Writes an archive entry by entry.
pub struct Writer<'w>(&'w mut dyn Write);

impl<'w> Writer<'w> {
    /// Begins an archive.
    pub fn new(to: &'w mut dyn Write) -> Self {
        Self(to)
    }

    /// Writes a header. For a file, [`Writer::data`] of `entry.size` bytes and [`Writer::padding`] follow.
    ///
    /// # Errors
    ///
    /// The output fails.
    pub fn entry(&mut self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let size = if matches!(entry.form, Form::File) { entry.size } else { 0 };
        self.header(path, entry, size)
    }

    /// Writes data of the current file.
    ///
    /// # Errors
    ///
    /// The output fails.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes the padding after the data of a file of `size` bytes.
    ///
    /// # Errors
    ///
    /// The output fails.
    pub fn padding(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.0.write_all(&[0; BLOCK][over..]) }
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    ///
    /// The output fails.
    pub fn finish(&mut self) -> io::Result<()> {
        self.0.write_all(&[0; 2 * BLOCK])?;
        self.0.flush()
    }

    fn header(&mut self, path: &[u8], entry: &Entry, size: u64) -> io::Result<()> {
        let (kind, target, device) = match &entry.form {
            Form::File => (b'0', &[][..], 0),
            Form::Hardlink(target) => (b'1', target.as_slice(), 0),
            Form::Symlink(target) => (b'2', target.as_slice(), 0),
            Form::Character(device) => (b'3', &[][..], *device),
            Form::Block(device) => (b'4', &[][..], *device),
            Form::Directory => (b'5', &[][..], 0),
            Form::Fifo => (b'6', &[][..], 0),
            Form::Socket => return Err(io::ErrorKind::Unsupported.into()),
        };
        let records = records(path, target, entry, size);
        if !records.is_empty() {
            let mut block = [0; BLOCK];
            put(&mut block, 0, b"././@PaxHeader");
            numbers(&mut block, 0o644, 0, 0, records.len() as u64, 0);
            self.block(&mut block, b'x')?;
            self.0.write_all(&records)?;
            self.padding(records.len() as u64)?;
        }
        let mut block = [0; BLOCK];
        put(&mut block, 0, &path[..path.len().min(NAME)]);
        put(&mut block, 157, &target[..target.len().min(NAME)]);
        let seconds = entry.mtime.0.clamp(0, LONG as i64) as u64;
        let ids = [entry.uid, entry.gid].map(|id| u64::from(id).min(SHORT));
        numbers(&mut block, entry.mode, ids[0], ids[1], size.min(LONG), seconds);
        octal(&mut block, 329, 7, u64::from(libc::major(device)).min(SHORT));
        octal(&mut block, 337, 7, u64::from(libc::minor(device)).min(SHORT));
        self.block(&mut block, kind)
    }

    /// Completes a header with magic, type and checksum, and writes it.
    fn block(&mut self, block: &mut [u8; BLOCK], kind: u8) -> io::Result<()> {
        block[156] = kind;
        put(block, 257, b"ustar\x0000");
        put(block, 148, b"        ");
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        octal(block, 148, 6, sum);
        block[154] = 0;
        self.0.write_all(block)
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, format!("{value:0digits$o}").as_bytes());
}

fn numbers(block: &mut [u8; BLOCK], mode: u32, uid: u64, gid: u64, size: u64, mtime: u64) {
    octal(block, 100, 7, mode.into());
    octal(block, 108, 7, uid);
    octal(block, 116, 7, gid);
    octal(block, 124, 11, size);
    octal(block, 136, 11, mtime);
}

fn records(path: &[u8], target: &[u8], entry: &Entry, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if path.len() > NAME {
        record(&mut records, b"path", path);
    }
    if target.len() > NAME {
        record(&mut records, b"linkpath", target);
    }
    let mut number = |key: &[u8], value: u64, most: u64| {
        if value > most {
            record(&mut records, key, value.to_string().as_bytes());
        }
    };
    number(b"size", size, LONG);
    number(b"uid", entry.uid.into(), SHORT);
    number(b"gid", entry.gid.into(), SHORT);
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || !(0..=LONG as i64).contains(&seconds) {
        record(&mut records, b"mtime", time(seconds, nanos).as_bytes());
    }
    // A hard link has the attributes of its target.
    if !matches!(entry.form, Form::Hardlink(_)) {
        for (name, value) in &entry.xattrs {
            let key = [b"SCHILY.xattr.", name.to_bytes()].concat();
            record(&mut records, &key, value);
        }
    }
    records
}

/// Formats a time in seconds. Before 1970, the sign applies to seconds and fraction together.
fn time(seconds: i64, nanos: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends a record `LENGTH KEY=VALUE\n`, whose length includes its own digits.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(form: Form) -> Entry {
        let mtime = (0, 0);
        Entry { form, mode: 0o644, uid: 0, gid: 0, mtime, size: 0, xattrs: Vec::new() }
    }

    #[test]
    fn a_records_length_counts_itself() {
        for (length, expected) in [(1, "6 k=v\n"), (4, "9 k=vvvv\n"), (5, "11 k=vvvvv\n")] {
            let mut text = Vec::new();
            record(&mut text, b"k", &b"v".repeat(length));
            assert_eq!(text, expected.as_bytes());
        }
        for length in 1..2000 {
            let mut text = Vec::new();
            record(&mut text, b"k", &vec![b'v'; length]);
            let said = text.split(|b| *b == b' ').next().unwrap();
            assert_eq!(std::str::from_utf8(said).unwrap(), text.len().to_string());
        }
    }

    #[test]
    fn times_have_a_sign_and_a_fraction() {
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-1, 500_000_000), "-0.5");
        assert_eq!(time(-2, 0), "-2");
        assert_eq!(time(10, 0), "10");
        assert_eq!(time(1 << 40, 1), "1099511627776.000000001");
    }

    #[test]
    fn only_what_does_not_fit_is_a_record() {
        let plain = entry(Form::File);
        assert!(records(&[b'n'; 100], b"", &plain, LONG).is_empty());
        let mut odd = entry(Form::Symlink(Vec::new()));
        (odd.uid, odd.gid, odd.mtime) = (2_097_152, 2_097_151, (-1, 0));
        odd.xattrs = vec![(c"user.x".into(), b"a\0b".to_vec())];
        let text = records(&[b'n'; 101], &[b't'; 101], &odd, LONG + 1);
        let long = |key: &str, c: &str| format!("{} {key}={}\n", key.len() + 107, c.repeat(101));
        let expected = long("path", "n")
            + &long("linkpath", "t")
            + "19 size=8589934592\n15 uid=2097152\n12 mtime=-1\n"
            + "27 SCHILY.xattr.user.x=a\0b\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn headers_and_padding_fill_blocks() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        let file = Entry { size: 600, ..entry(Form::File) };
        writer.entry(b"f", &file).unwrap();
        writer.data(&[b'x'; 600]).unwrap();
        writer.padding(600).unwrap();
        writer.entry(b"d/", &Entry { size: 4096, ..entry(Form::Directory) }).unwrap();
        writer.finish().unwrap();
        assert_eq!(out.len(), BLOCK * (1 + 2 + 1 + 2));
        assert_eq!(&out[124..136], b"00000001130\0");
        assert_eq!(&out[3 * BLOCK + 124..3 * BLOCK + 136], b"00000000000\0");
        let sum: u64 = (0..BLOCK)
            .map(|i| u64::from(if (148..156).contains(&i) { b' ' } else { out[i] }))
            .sum();
        assert_eq!(&out[148..156], format!("{sum:06o}\0 ").as_bytes());
    }
}
