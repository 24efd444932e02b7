//! The containerd shim, by the protocol that containerd speaks to it. `SHIM=containerd-shim-runc-v2`
//! asks another one the same; `RUNTIME` names the runtime that it drives.

mod figures;
mod lifecycle;
mod place;
mod robust;
mod rootfs;
mod sandbox;
mod streams;
mod wire;
