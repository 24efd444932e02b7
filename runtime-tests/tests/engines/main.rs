//! Engines with the runtime under test where runc was. `ENGINES=1 cargo test --test engines`.
//!
//! Each test starts an engine of its own, in a mount and a network namespace that end with the
//! test, on a socket and in directories of its own: the host's engines and mounts are not touched.
//! Images come from the fixtures' rootfs; nothing is pulled.

mod cni;
mod containerd;
mod cri;
mod docker;
mod kills;
mod pages;
mod podman;
mod private;
