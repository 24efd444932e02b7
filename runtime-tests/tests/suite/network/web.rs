//! The server of `docs/web.md` from further away; `pages` pastes the page's own block.

use runtime_tests::skip;

use super::host::{Host, neighbour, possible, sleeper};
use crate::pages;

#[test]
fn the_world() {
    if !possible() {
        return;
    }
    let Some(busybox) = skip::tool("busybox", "busybox-static") else { return };
    if skip::tool("curl", "curl").is_none() {
        return;
    }
    let host = Host::new();
    let world = neighbour(&host);
    let tool = sleeper();
    let work = tool.directory("page");
    pages::bundles(&work, &busybox);
    // Into files: what is detached keeps the streams that it has got.
    let shell = |script: &str| {
        let whole = format!(
            "aril() {{ {} --root {} \"$@\"; }}; cd {}\n(set -e\n{script}\n) > out 2> err || \
             {{ cat err; exit 1; }}; cat out",
            tool.runtime.path.display(),
            tool.root.display(),
            work.display()
        );
        host.sh(&whole)
    };
    // From another machine, by both families, as fast as it can ask.
    let subnets = "--subnet 10.78.0.0/24 --subnet fd78::/64";
    shell(&format!(
        "aril network create w {subnets}
         aril run --detach --bundle bundles/web --upper ephemeral --network bridge:w --publish 8080:80 web"
    ));
    for url in ["http://192.0.2.1:8080/", "http://[2001:db8::1]:8080/"] {
        let ask = format!("curl --silent --max-time 10 --retry 20 --retry-connrefused '{url}'");
        let answers = world.sh(&format!("for n in $(seq 20); do {ask}; done"));
        assert_eq!(answers, "hello from the container\n".repeat(20), "{url}");
    }
    shell("aril delete --force web");
    host.has_nothing_left();
}
