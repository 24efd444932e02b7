//! The specs that callers generate, each by every way into the container.

use std::fs;

use runtime_tests::{Container, spec};

use super::{Way, same};

fn containerd(mut c: Container) -> Container {
    let spec = spec::containerd(c.view);
    c.take_spec(spec);
    c
}

/// The files that engines make for a container and bind into it.
fn engine_files(c: &Container) -> std::path::PathBuf {
    let files = c.directory("files");
    for name in ["hosts", "hostname", "resolv.conf", "containerenv"] {
        fs::write(files.join(name), name).expect("a file");
    }
    c.directory("files/shm");
    files
}

fn docker(mut c: Container) -> Container {
    let spec = spec::docker(c.view, &engine_files(&c));
    c.take_spec(spec);
    c
}

fn podman(mut c: Container) -> Container {
    let spec = spec::podman(c.view, &engine_files(&c));
    c.take_spec(spec);
    c
}

macro_rules! each_way {
    ($($name:ident: $make:expr;)*) => {$(
        mod $name {
            use super::*;
            #[test]
            fn run() {
                same(Way::Run, $make);
            }
            #[test]
            fn create_and_start() {
                same(Way::CreateStart, $make);
            }
            #[test]
            fn exec() {
                same(Way::Exec, $make);
            }
            #[test]
            fn terminal() {
                same(Way::Terminal, $make);
            }
            #[test]
            fn exec_with_a_terminal() {
                same(Way::ExecTerminal, $make);
            }
        }
    )*};
}

each_way! {
    runc_default: |c| c;
    containerd_default: containerd;
    docker_default: docker;
    podman_default: podman;
    in_a_user_namespace: |c| c.in_user_namespace(100_000);
}
