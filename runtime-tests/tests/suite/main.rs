//! Black-box tests of the binary that `RUNTIME` names. Modules mirror `src/`.
//!
//! A test that another runtime cannot pass either asks [`runtime_tests::Runtime::only_aril`] with
//! the reason, or is wrong.

mod annotations;
mod binds;
mod bundleless;
mod caller;
mod cgroup;
mod cni;
mod commit;
mod console;
mod cves;
mod damaged;
mod diff;
mod docker_options;
mod errors;
mod events;
mod exec;
mod explain;
mod export;
mod hooks;
mod idmap;
mod inheritance;
mod json;
mod landlock;
mod lifecycle;
mod load;
mod lsm;
mod monitor;
mod moved;
mod must;
mod namespaces;
mod net_devices;
mod network;
mod observer;
mod older_kernels;
mod overlay;
mod overlay_exerciser;
mod pages;
mod parallel;
mod parked;
mod pause;
mod plan;
mod process;
mod reconcile;
mod resources;
mod rootfs;
mod rootless;
mod sealed;
mod seccomp;
mod seccomp_modes;
mod seccomp_notify;
mod seccomp_report;
mod syscalls;
mod userns;
mod volume;
