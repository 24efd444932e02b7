//! Counts the system calls that a profile denies, for `run --seccomp-report`.
//!
//! [`Refusals::watch`] changes the filter: instead of returning an errno, it notifies Aril. Aril computes the errno
//! that the original filter returns, answers with it, and counts. Allowed calls do not notify: after a "continue"
//! answer, another thread could have changed their arguments. Actions that kill stay as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::sock_filter;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::syscalls::Finder;
use super::{Arch, Filter};
use crate::error::{Error, OsContext, Result, text};
use crate::sys::Errno;
use crate::sys::seccomp::{self as kernel, Notification};

/// Denied system calls and their counts.
#[derive(Debug)]
pub struct Refusals {
    /// Original program of the profile.
    program: Vec<sock_filter>,
    listener: Option<OwnedFd>,
    counts: BTreeMap<(u32, u32, i32), u64>,
}

/// Instruction codes of filters.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

impl Refusals {
    /// Changes the filter so that it notifies instead of returning an errno.
    ///
    /// # Errors
    ///
    /// The profile has an agent, or denies write(2), which the report needs.
    pub fn watch(filter: &mut Filter) -> Result<Self> {
        if filter.notifies() {
            return Err(Error::config(
                "cannot report denied system calls: the profile has a seccomp agent, which gets them",
            )
            .hint("remove --seccomp-report, or the rules with SCMP_ACT_NOTIFY"));
        }
        let program = filter.program.clone();
        for instruction in &mut filter.program {
            if instruction.code == RETURN && action(instruction.k) == libc::SECCOMP_RET_ERRNO {
                instruction.k = libc::SECCOMP_RET_USER_NOTIF;
            }
        }
        let own = answer(&program, &Notification::of(Arch::native().audit(), WRITE));
        if action(own) == libc::SECCOMP_RET_ERRNO {
            return Err(Error::config(
                "cannot report denied system calls: the profile denies write, which the report needs",
            )
            .hint("remove --seccomp-report, or allow write"));
        }
        filter.flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
        Ok(Self { program, listener: None, counts: BTreeMap::new() })
    }

    /// Sets the listener of the loaded filter.
    pub fn listen(&mut self, listener: OwnedFd) {
        self.listener = Some(listener);
    }

    /// Returns the descriptor to poll for reading. `None` after the last filtered process has ended.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Answers all pending notifications, without waiting for more.
    ///
    /// # Errors
    ///
    /// An error of poll(2) or seccomp_unotify(2).
    pub fn answer(&mut self) -> Result<()> {
        while let Some(listener) = &self.listener {
            let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::ZERO) {
                Err(Errno::EINTR) => continue,
                other => other.os("poll", "seccomp listener")?,
            };
            let events = polled[0].revents().unwrap_or(PollFlags::empty());
            if !events.contains(PollFlags::POLLIN) {
                if !events.is_empty() {
                    self.listener = None;
                }
                return Ok(());
            }
            let asked = match kernel::receive(listener.as_fd()) {
                // The calling process has been killed.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                other => other.os("ioctl SECCOMP_IOCTL_NOTIF_RECV", "")?,
            };
            let errno = (answer(&self.program, &asked) & libc::SECCOMP_RET_DATA) as i32;
            *self.counts.entry((asked.arch, asked.number, errno)).or_default() += 1;
            match kernel::answer(listener.as_fd(), asked.id, errno) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).os("ioctl SECCOMP_IOCTL_NOTIF_SEND", ""),
            }
        }
        Ok(())
    }
}

/// write(2) of the native architecture.
const WRITE: u32 = libc::SYS_write as u32;

fn action(answer: u32) -> u32 {
    answer & libc::SECCOMP_RET_ACTION_FULL
}

/// Runs the program, and returns its action. The program is one of [`super::bpf`]: jumps go forward, and it ends with a
/// return.
fn answer(program: &[sock_filter], call: &Notification) -> u32 {
    let (mut accumulator, mut at) = (0, 0);
    while let Some(sock_filter { code, jt, jf, k }) = program.get(at) {
        at += 1;
        let taken = match *code {
            LOAD => {
                accumulator = call.word(*k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += *k as usize;
                continue;
            }
            EQUAL => accumulator == *k,
            GREATER => accumulator > *k,
            AT_LEAST => accumulator >= *k,
            RETURN => return *k,
            _ => break,
        };
        at += usize::from(if taken { *jt } else { *jf });
    }
    libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32
}

/// Returns the name of a system call. An unknown call is a number.
fn name(audit: u32, number: u32) -> String {
    let arch = Arch::ALL.into_iter().find(|arch| {
        arch.audit() == audit
            && (*arch == Arch::X32) == (audit == Arch::X32.audit() && number & Arch::X32_BIT != 0)
    });
    let Some(arch) = arch else { return number.to_string() };
    let name = Finder::name(arch, number).map_or_else(|| number.to_string(), str::to_owned);
    if arch == Arch::native() { name } else { format!("{name} ({arch})") }
}

impl fmt::Display for Refusals {
    /// Prints a table, the most frequent call first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.is_empty() {
            return writeln!(f, "seccomp: no system call was refused");
        }
        let all: u64 = self.counts.values().sum();
        writeln!(f, "seccomp: {all} system calls were refused")?;
        writeln!(f, "{:>8}  {:<24} ANSWER", "COUNT", "SYSTEM CALL")?;
        let mut rows: Vec<_> = self.counts.iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((arch, number, errno), count) in rows {
            let answer = text::errno(Errno::from_raw(*errno));
            writeln!(f, "{count:>8}  {:<24} {answer}", name(*arch, *number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::seccomp::{parent, plan, reference};

    fn filter() -> Filter {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                "args": [{"index": 0, "value": 0x1_0000_0002_u64, "op": "SCMP_CMP_GE"}]},
            {"names": ["bpf"], "action": "SCMP_ACT_KILL"}]});
        let profile = serde_json::from_value(profile).unwrap();
        plan::compile(&profile, &parent::facts()).unwrap().filter
    }

    #[test]
    fn it_asks_where_an_errno_would_be_the_answer() {
        let mut asking = filter();
        let refusals = Refusals::watch(&mut asking).unwrap();
        assert!(asking.notifies());
        for number in 0..600 {
            for first in [0, 2, 0x1_0000_0001, 0x1_0000_0002, u64::MAX] {
                for arch in Arch::ALL {
                    let args = [first, 0, 0, 0, 0, 0];
                    let data = reference::Data { nr: number, arch: arch.audit(), args };
                    let plain = reference::run(&refusals.program, &data);
                    let mut call = Notification::of(arch.audit(), number);
                    call.arguments = args;
                    assert_eq!(answer(&refusals.program, &call), plain, "{number} {first}");
                    let asked =
                        reference::run(&asking.program, &data) == libc::SECCOMP_RET_USER_NOTIF;
                    assert_eq!(asked, action(plain) == libc::SECCOMP_RET_ERRNO);
                }
            }
        }
    }

    #[test]
    fn a_table_of_names() {
        let mut refusals = Refusals::watch(&mut filter()).unwrap();
        assert_eq!(refusals.to_string(), "seccomp: no system call was refused\n");
        let native = Arch::native().audit();
        refusals.counts.insert((native, libc::SYS_mount as u32, 13), 2);
        refusals.counts.insert((native, 5000, 38), 7);
        assert_eq!(
            refusals.to_string(),
            "seccomp: 9 system calls were refused\n   COUNT  SYSTEM CALL              ANSWER\n       \
             7  5000                     function not implemented\n       2  mount                    \
             permission denied\n"
        );
        assert_eq!(name(Arch::X86.audit(), 21), "mount (x86)");
    }
}
