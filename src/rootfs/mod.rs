//! rootfs: to come.
