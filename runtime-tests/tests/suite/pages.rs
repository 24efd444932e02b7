//! The fenced `sh` blocks of README.md and docs/, pasted in order on a system where aril is installed. A `text` block that
//! follows is what they print; a line `...` in it stands for any lines.
//!
//! The rest of an info string says what else a block needs: `sh user` an ordinary user, which is tried here; an engine, a
//! second host, the source tree or `make`, which other tests have (see [`ELSEWHERE`]).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime_tests::{Container, View, host, skip};

use crate::network::host::possible;

/// What the second word of an info string is, and where such blocks are tried instead.
const ELSEWHERE: [(&str, &str); 6] = [
    ("make", "builds in the source tree: make fresh"),
    ("source", "runs the tests themselves"),
    ("containerd", "an engine: make test-engines"),
    ("docker", "an engine: make test-engines"),
    ("podman", "an engine: make test-engines"),
    ("hosts", "needs a second host"),
];

/// An ordinary user of the tests.
const USER: u32 = 64_000;

/// A page, by its path in the repository.
pub fn page(path: &str) -> String {
    fs::read_to_string(repository().join(path)).expect("the page")
}

pub struct Block {
    /// What follows `sh` in the info string.
    pub needs: String,
    pub script: String,
    pub printed: Option<String>,
}

/// The `sh` blocks of a page, with what they print.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body = lines.by_ref().take_while(|line| *line != "```");
        let body = body.fold(String::new(), |text, line| text + line + "\n");
        match info.split_once(' ').unwrap_or((info, "")) {
            ("sh", needs) => {
                found.push(Block { needs: needs.into(), script: body, printed: None });
            }
            ("text", _) => {
                if let Some(block) = found.last_mut().filter(|block| block.printed.is_none()) {
                    block.printed = Some(body);
                }
            }
            _ => {}
        }
    }
    found
}

/// Where it was built; in the virtual machine it is where the tests are run.
fn repository() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    if built.exists() { built.to_owned() } else { std::env::current_dir().expect("getcwd") }
}

/// README.md, and all of docs/ but the decisions.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(repository().join("docs")).expect("docs").flatten();
    let names = entries.map(|entry| format!("docs/{}", entry.file_name().display()));
    let mut pages: Vec<_> = names.filter(|name| name.ends_with(".md")).collect();
    pages.sort();
    pages.insert(0, "README.md".into());
    pages
}

/// As `make bundle` makes it, in a copy of `bundles/`.
const PREPARE: &str = "set -e
    mkdir -p bundles/busybox/rootfs
    cd bundles/busybox/rootfs
    mkdir -p bin dev etc proc sys tmp
    cp \"$BUSYBOX\" bin/busybox
    for applet in $(bin/busybox --list); do
        [ \"$applet\" = busybox ] || ln -sf busybox \"bin/$applet\"
    done
    echo 'root:x:0:0:root:/:/bin/sh' > etc/passwd
    echo 'root:x:0:' > etc/group";

/// A copy of `bundles/` in `work`, with its rootfs.
pub fn bundles(work: &Path, busybox: &Path) {
    copy(&repository().join("bundles"), &work.join("bundles"));
    let mut prepare = Command::new("sh");
    let done = prepare.args(["-c", PREPARE]).current_dir(work).env("BUSYBOX", busybox).status();
    assert!(done.expect("sh").success());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (kind, name) = (entry.file_type().expect("a kind"), entry.file_name());
        // What `make bundle` has made here is made there anew.
        if kind.is_dir() && name != "rootfs" {
            copy(&entry.path(), &to.join(name));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name)).expect("a copy");
        }
    }
}

/// Puts the shell into a cgroup named MARK of each hierarchy, which it then sees as the root of the hierarchy: names of
/// containers in the pages are those of other tests too.
const ENTER: &str = r#"set -e
for dir in $HIERARCHIES; do
    mkdir "$dir/$MARK"
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$dir/$file" ] || cat "$dir/$file" > "$dir/$MARK/$file"
    done
    for controller in $(cat "$dir/cgroup.controllers" 2> /dev/null); do
        echo "+$controller" > "$dir/cgroup.subtree_control"
    done
    echo $$ > "$dir/$MARK/cgroup.procs"
done
exec unshare --net --mount --cgroup --propagation private sh "$WORK/installed""#;

/// A system where aril is installed: files of the host's, but of its own `/etc`, `/run`, `/var/lib` and `/usr/local/bin`.
const INSTALLED: &str = r#"set -e
awk '/ - cgroup2? / { sub("^rw,?", "", $NF); print $5, / - cgroup2 / ? "cgroup2" : "cgroup", $NF }' \
    /proc/self/mountinfo > "$WORK/hierarchies"
grep -q ' /sys/fs/cgroup .* - cgroup2 ' /proc/self/mountinfo || mount -t tmpfs tmpfs /sys/fs/cgroup
while read -r dir kind options; do
    umount "$dir" 2> /dev/null || mkdir -p "$dir"
    [ "$kind" = cgroup ] || options=$CGROUP2
    mount -t "$kind" ${options:+-o "$options"} "$kind" "$dir"
    # No process may be beside the containers where their controllers are.
    [ "$kind" = cgroup ] || { mkdir "$dir/shell"; echo $$ > "$dir/shell/cgroup.procs"; }
done < "$WORK/hierarchies"
mkdir "$WORK/etc"
cp -a /etc/. "$WORK/etc"
mount --bind "$WORK/etc" /etc
mount --bind "$WORK/bin" /usr/local/bin
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
ip link set lo up
export PATH=/usr/local/bin:$PATH HOME="$WORK"
cd "$WORK/pasted"
. "$WORK/script"
"#;

/// The blocks of a page as one script, each of which prints to a file of its number: what is detached keeps the
/// streams that it has got, and must not keep the test waiting.
fn script(blocks: &[&Block]) -> String {
    let mut script = String::new();
    for (number, Block { needs, script: pasted, .. }) in blocks.iter().enumerate() {
        let (open, close) = match needs.as_str() {
            "user" => (
                format!(
                    "(cd \"$WORK/user\" && exec setpriv --reuid {USER} --regid {USER} --clear-groups \
                     env HOME=\"$WORK/user\" XDG_RUNTIME_DIR=\"$WORK/user\" sh -e <<'PASTED'\n"
                ),
                "PASTED\n)",
            ),
            _ => ("{\n".to_owned(), "}"),
        };
        let _ = writeln!(script, "{open}{pasted}{close} > \"$WORK/out{number}\"");
    }
    script
}

/// Whether these lines are printed as the page says.
fn is_as_said(printed: &[&str], said: &[&str]) -> bool {
    match (said, printed) {
        ([], []) => true,
        (["...", said @ ..], _) => {
            (0..=printed.len()).any(|skipped| is_as_said(&printed[skipped..], said))
        }
        ([said, more_said @ ..], [line, more @ ..]) => {
            line.trim_end() == said.trim_end() && is_as_said(more, more_said)
        }
        _ => false,
    }
}

/// Pastes the blocks into a shell of such a system.
fn paste(name: &str, blocks: &[&Block], busybox: &Path) {
    let c = Container::new(View::Host);
    let work = c.directory("work");
    let bin = c.directory("work/bin");
    for dir in [c.directory("work/pasted"), c.directory("work/user")] {
        std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).expect("chown");
    }
    for program in ["aril", "aril-cni", "containerd-shim-aril-v2"] {
        let built = c.runtime.path.with_file_name(program);
        if built.exists() {
            fs::copy(built, bin.join(program)).expect("a copy");
        }
    }
    // README.md starts from nothing.
    if name != "README.md" {
        bundles(&work.join("pasted"), busybox);
    }
    fs::write(work.join("installed"), INSTALLED).expect("a script");
    fs::write(work.join("script"), script(blocks)).expect("a script");
    let mut hierarchies = host::hierarchies();
    hierarchies.dedup();
    let list = hierarchies.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>();
    let out = c
        .bare(Path::new("/bin/sh"), "paste")
        .env("HIERARCHIES", list.join(" "))
        .env("CGROUP2", host::cgroup2_options())
        .env("WORK", &work)
        .env("MARK", &c.mark)
        .args(["-c", ENTER])
        .output();
    for dir in &hierarchies {
        let shell = dir.join(&c.mark).join("shell");
        // Processes that have ended may not have been reaped yet.
        runtime_tests::container::wait_until("the shell's cgroup is empty", || {
            fs::remove_dir(&shell).is_ok() || !shell.exists()
        });
        let _ = fs::remove_dir(dir.join(&c.mark));
    }
    assert_eq!(out.code, Some(0), "{name}: {out:#?}");
    for (number, block) in blocks.iter().enumerate() {
        let printed = fs::read_to_string(work.join(format!("out{number}"))).expect("an output");
        if let Some(said) = &block.printed {
            let lines = |text| str::lines(text).collect::<Vec<_>>();
            assert!(
                is_as_said(&lines(&printed), &lines(said)),
                "{name}:\n{}\nprints\n{printed}\nand not\n{said}",
                block.script
            );
        }
    }
    c.leaves_nothing();
}

#[test]
fn blocks_pass_when_pasted_in_order() {
    if !possible() {
        return;
    }
    let Some(busybox) = skip::tool("busybox", "busybox-static") else { return };
    if skip::tool("curl", "curl").and(skip::tool("setpriv", "util-linux")).is_none() {
        return;
    }
    let mut pasted = 0;
    for name in pages() {
        let all = blocks(&page(&name));
        let (here, others): (Vec<_>, Vec<_>) =
            all.iter().partition(|block| ["", "user"].contains(&block.needs.as_str()));
        for block in others {
            let reason = ELSEWHERE.iter().find(|(needs, _)| *needs == block.needs);
            let (_, reason) =
                reason.unwrap_or_else(|| panic!("{name}: no test knows `sh {}`", block.needs));
            let first = block.script.lines().next().unwrap_or_default();
            eprintln!("{name}: left out, {reason}: {first}");
        }
        if !here.is_empty() {
            eprintln!("{name}: {} blocks pasted", here.len());
            paste(&name, &here, &busybox);
            pasted += here.len();
        }
    }
    assert!(pasted > 8, "{pasted} blocks are few");
}

#[test]
fn outputs_on_pages_are_compared() {
    let found =
        blocks("x\n```sh\na\n```\n\n```text\n1\n```\n```json\n{}\n```\n```sh user\nb\n```\n");
    let seen: Vec<_> =
        found.iter().map(|b| (&*b.needs, &*b.script, b.printed.as_deref())).collect();
    assert_eq!(seen, [("", "a\n", Some("1\n")), ("user", "b\n", None)]);
    assert!(is_as_said(&["a", "b", "c"], &["a", "...", "c"]));
    assert!(is_as_said(&["a", "c"], &["a", "...", "c"]));
    assert!(!is_as_said(&["a", "b", "c"], &["a", "c"]));
    assert!(!is_as_said(&["a"], &["a", "b"]));
}
