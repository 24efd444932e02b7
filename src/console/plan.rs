//! Turns `process.terminal` and the command line into the terminal's route. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;

use crate::error::{Error, Result};
use crate::sys::tty::Size;

/// Part of the config and the command line that decides about the terminal.
pub struct TerminalRequest<'a> {
    pub process: &'a Process,
    /// The runtime returns before the process ends: `create`, or `--detach`.
    pub detach: bool,
    /// Path of `--console-socket`.
    pub socket: Option<&'a Path>,
}

/// Planned terminal.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub route: Route,
    pub size: Option<Size>,
}

/// Receiver of the master: the console socket, or the runtime in the foreground.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Socket(PathBuf),
    Foreground,
}

/// Plans the terminal. `None`: the process has none.
///
/// # Errors
///
/// A terminal needs a console socket or the foreground, or a console socket is given without a terminal.
pub fn plan(input: &TerminalRequest) -> Result<Option<Plan>> {
    let terminal = input.process.terminal().unwrap_or(false);
    let route = match (terminal, input.detach, input.socket) {
        (true, true, Some(socket)) => Route::Socket(socket.to_owned()),
        (true, true, None) => {
            return Err(Error::config(
                "cannot allocate tty if aril will detach without setting console socket",
            )
            .hint(
                "use --console-socket with a detached container, or leave out --tty or --detach",
            ));
        }
        (_, _, Some(_)) => {
            return Err(Error::config(
                "cannot use console socket if aril will not detach or allocate tty",
            ));
        }
        (true, false, None) => Route::Foreground,
        (false, _, None) => return Ok(None),
    };
    Ok(Some(Plan { route, size: size(input.process) }))
}

/// Size of the terminal, cut to 16 bits. 0 by 0 means no size.
fn size(process: &Process) -> Option<Size> {
    let size = process.console_size()?;
    let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let size = Size { rows: narrow(size.height()), columns: narrow(size.width()) };
    (size.rows != 0 || size.columns != 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(
        terminal: bool,
        detach: bool,
        socket: bool,
    ) -> std::result::Result<Option<Route>, String> {
        let mut process = Process::default();
        process.set_terminal(Some(terminal));
        let socket = socket.then(|| Path::new("/s"));
        let planned = plan(&TerminalRequest { process: &process, detach, socket });
        planned.map(|plan| plan.map(|p| p.route)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_socket_goes_with_a_detached_terminal() {
        let cannot_allocate = Err(
            "cannot allocate tty if aril will detach without setting console socket".to_owned(),
        );
        let cannot_use =
            Err("cannot use console socket if aril will not detach or allocate tty".to_owned());
        assert_eq!(planned(true, true, true), Ok(Some(Route::Socket("/s".into()))));
        assert_eq!(planned(true, true, false), cannot_allocate);
        assert_eq!(planned(true, false, true), cannot_use);
        assert_eq!(planned(true, false, false), Ok(Some(Route::Foreground)));
        assert_eq!(planned(false, true, true), cannot_use);
        assert_eq!(planned(false, false, true), cannot_use);
        assert_eq!(planned(false, true, false), Ok(None));
    }

    #[test]
    fn sizes_are_cut_to_what_a_terminal_counts() {
        let mut process = Process::default();
        let sized = |height: u64, width: u64| serde_json::json!({"height": height, "width": width});
        process.set_console_size(Some(serde_json::from_value(sized(24, 70_000)).unwrap()));
        assert_eq!(size(&process), Some(Size { rows: 24, columns: u16::MAX }));
        process.set_console_size(Some(serde_json::from_value(sized(0, 0)).unwrap()));
        assert_eq!(size(&process), None);
    }
}
