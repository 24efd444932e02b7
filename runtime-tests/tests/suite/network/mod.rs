//! Networks of aril's own. Everything happens in network namespaces that the tests make.

mod adversary;
pub mod host;
mod leases;
mod load;
mod modes;
mod names;
mod reach;
mod web;
mod wire;
