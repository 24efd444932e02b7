//! cgroup: to come.
