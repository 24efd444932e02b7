//! The part of classic BPF that a seccomp filter may use.

use libc::sock_filter;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0, "unaligned load");
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
            }
            _ => panic!("load at {offset}"),
        }
    }
}

pub fn run(program: &[sock_filter], data: &Data) -> u32 {
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |taken| at += usize::from(if taken { jt } else { jf });
        match code {
            0x20 => accumulator = data.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// What the kernel checks before it takes a program: jumps stay inside, and it ends with a return.
pub fn check(program: &[sock_filter]) {
    for (i, f) in program.iter().enumerate() {
        let furthest = match f.code {
            0x05 => f.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(f.jt.max(f.jf)),
            _ => 0,
        };
        assert!(i + 1 + furthest < program.len() || f.code == 0x06, "jump at {i}");
    }
    assert_eq!(program.last().unwrap().code, 0x06);
}
