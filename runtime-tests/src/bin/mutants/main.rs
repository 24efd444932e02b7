//! `mutants [NAME ...]`: removes protections, one at a time, and checks that the tests of each fail.
//!
//! Run it in the repository's root. A file in `runtime-tests/mutants/` names the tests and the text to replace. The
//! sources are changed in a copy beside the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

struct Mutant {
    name: String,
    tests: Vec<Test>,
    changes: Vec<Change>,
}

struct Test {
    /// `test`: of the suite. `shim`: of the tests of containerd's shim.
    kind: String,
    name: String,
}

struct Change {
    file: PathBuf,
    old: String,
    new: String,
}

fn main() -> ExitCode {
    match all() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error:#}");
            ExitCode::from(125)
        }
    }
}

/// Runs the mutants. Returns the number of tests that did not fail.
fn all() -> Result<usize> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut files: Vec<PathBuf> = fs::read_dir("runtime-tests/mutants")
        .context("runtime-tests/mutants: run this from the repository's root")?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut mutants = files.iter().map(|file| parse(file)).collect::<Result<Vec<_>>>()?;
    mutants.retain(|mutant| wanted.is_empty() || wanted.contains(&mutant.name));
    ensure!(!mutants.is_empty(), "no mutant of that name");
    let mut unseen = 0;
    for mutant in &mutants {
        let verdict = try_one(mutant).with_context(|| mutant.name.clone())?;
        for (test, seen) in mutant.tests.iter().zip(&verdict) {
            let verdict = if *seen { "seen    " } else { "NOT SEEN" };
            println!("{verdict} {}: {}", mutant.name, test.name);
        }
        unseen += verdict.iter().filter(|seen| !**seen).count();
    }
    println!("{} mutants, {unseen} tests that did not notice", mutants.len());
    Ok(unseen)
}

/// Reads a mutant: lines `test: NAME` or `shim: NAME`; then for each change `file: PATH`, the old text between `<<<<`
/// and `====`, and the new text between `====` and `>>>>`.
fn parse(file: &Path) -> Result<Mutant> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut mutant = Mutant { name, tests: Vec::new(), changes: Vec::new() };
    let mut lines = text.lines();
    let mut path = PathBuf::new();
    while let Some(line) = lines.next() {
        let until = |lines: &mut std::str::Lines<'_>, end: &str| {
            lines.take_while(|line| *line != end).collect::<Vec<_>>().join("\n")
        };
        match line.split_once(": ") {
            Some((kind @ ("test" | "shim"), name)) => {
                mutant.tests.push(Test { kind: kind.to_owned(), name: name.to_owned() })
            }
            Some(("file", name)) => path = name.into(),
            _ if line == "<<<<" => {
                let (old, new) = (until(&mut lines, "===="), until(&mut lines, ">>>>"));
                mutant.changes.push(Change { file: path.clone(), old, new });
            }
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => bail!("{}: {line:?}", file.display()),
        }
    }
    ensure!(!mutant.tests.is_empty() && !mutant.changes.is_empty(), "{}", file.display());
    Ok(mutant)
}

/// Returns for each test if it failed.
fn try_one(mutant: &Mutant) -> Result<Vec<bool>> {
    let place = Path::new("target/mutants");
    let tree = place.join("tree");
    fs::create_dir_all(&tree)?;
    for source in ["Cargo.toml", "Cargo.lock", ".cargo", "src", "runtime-tests"] {
        copy(Path::new(source), &tree.join(source)).with_context(|| source.to_owned())?;
    }
    for change in &mutant.changes {
        let file = tree.join(&change.file);
        let text = fs::read_to_string(&file).with_context(|| change.file.display().to_string())?;
        let times = text.matches(&change.old).count();
        let shown = change.file.display();
        ensure!(times == 1, "{shown} has {times} of the text to replace:\n{}", change.old);
        fs::write(&file, text.replace(&change.old, &change.new))?;
    }
    let target = place.canonicalize()?.join("build");
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "--package", "aril"])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Crelocation-model=static -Awarnings")
        .current_dir(&tree)
        .status()?;
    ensure!(built.success(), "the mutant does not build");
    let found = find(&target, "debug/aril").context("the binary")?;
    mutant.tests.iter().map(|test| fails(test, &found)).collect()
}

/// Writes only files that differ, so that cargo rebuilds only these.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    let text = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(to, text).context("write the copy")
}

/// Finds `target/debug/aril`, or the same below the directory of a target triple.
fn find(target: &Path, name: &str) -> Option<PathBuf> {
    let below = fs::read_dir(target).ok()?.flatten().map(|entry| entry.path().join(name));
    std::iter::once(target.join(name)).chain(below).find(|file| file.is_file())
}

fn fails(test: &Test, runtime: &Path) -> Result<bool> {
    let executable = if test.kind == "shim" { "shim" } else { "suite" };
    let run = Command::new("cargo")
        .args(["test", "--quiet", "--locked", "--package", "runtime-tests", "--test", executable])
        .args(["--", "--exact", &test.name])
        .env("RUNTIME", runtime)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&run.stdout);
    let ran = text.contains("running 1 test");
    ensure!(ran, "no test named {}", test.name);
    Ok(!run.status.success())
}
