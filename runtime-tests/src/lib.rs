//! Fixtures of the black-box tests and the benchmarks.
//!
//! A test describes a [`Container`], made from a [`spec`] in a [`View`] of the cgroup tree, makes [`Call`]s of the
//! runtime, and asserts on their outputs. Leaving anything behind is a failure: dropping a [`Container`] deletes it
//! and then looks for its traces on the whole host ([`host`]).

pub mod call;
pub mod container;
pub mod host;
pub mod protobuf;
pub mod runtime;
pub mod skip;
pub mod spec;
pub mod terminal;
pub mod user;
pub mod view;

pub use call::{Call, Output, Running};
pub use container::Container;
pub use runtime::Runtime;
pub use user::User;
pub use view::{View, in_each_view, on_the_host};
