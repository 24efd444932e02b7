//! Layouts of the cgroup tree: tests that depend on it run in both.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use crate::runtime::Runtime;
use crate::{Container, skip};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Layout of the host: v1, hybrid or pure v2.
    Host,
    /// Only cgroup2 on /sys/fs/cgroup, in a private mount namespace of the runtime.
    Unified,
}

impl View {
    /// Stages (see the program `stage`) that lead into the view.
    pub fn stages(self) -> &'static [&'static str] {
        match self {
            View::Host => &[],
            View::Unified => &["v2"],
        }
    }

    pub fn is_v2(self) -> bool {
        self == View::Unified || host_is_v2()
    }
}

impl View {
    /// True if the controller can be used in the view.
    pub fn controls(self, controller: &str) -> bool {
        let in_v1 = crate::host::hierarchies().iter().any(|root| root.ends_with(controller));
        let listed = |root: &std::path::Path| {
            let list = std::fs::read_to_string(root.join("cgroup.controllers"));
            list.is_ok_and(|list| list.split_whitespace().any(|c| c == controller))
        };
        let in_v2 = crate::host::hierarchies().iter().any(|root| listed(root));
        if self.is_v2() { in_v2 } else { in_v1 }
    }
}

pub fn host_is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Runs the test in the host's layout, then in the pure cgroup v2 view. Both run even if one fails.
#[track_caller]
pub fn in_each_view(test: impl Fn(View)) {
    if !skip::is_root() {
        return;
    }
    let views: &[View] = if host_is_v2() { &[View::Host] } else { &[View::Host, View::Unified] };
    let mut failure = None;
    for &view in views.iter().filter(|view| works_in(**view)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(view))) {
            eprintln!("failed in the view {view:?}");
            failure = Some(panic);
        }
    }
    if let Some(panic) = failure {
        resume_unwind(panic);
    }
}

/// Runs a test that is independent of cgroups, in the first view in which the runtime works.
#[track_caller]
pub fn on_the_host(test: impl Fn(View)) {
    if !skip::is_root() {
        return;
    }
    match works_in(View::Host) {
        true => test(View::Host),
        false => test(View::Unified),
    }
}

/// True if the runtime works in the view. Aril must; other runtimes need not (crun refuses hybrid hosts).
fn works_in(view: View) -> bool {
    static WORKS: [OnceLock<bool>; 2] = [const { OnceLock::new() }; 2];
    let runtime = Runtime::under_test();
    if runtime.is_aril() {
        return true;
    }
    let works = *WORKS[view as usize].get_or_init(|| {
        let container = Container::new(view);
        container.run().code == Some(0)
    });
    if !works {
        skip::inapplicable(&format!(
            "{} cannot run a container in the view {view:?}",
            runtime.name
        ));
    }
    works
}
