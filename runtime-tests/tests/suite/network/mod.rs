//! Networks of aril's own. Everything happens in network namespaces that the tests make.

pub mod host;
mod leases;
mod load;
mod modes;
mod names;
mod reach;
mod web;
