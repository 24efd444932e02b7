use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use std::collections::HashMap;

use super::*;

fn annotations(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn policy(allow: &[&str]) -> Policy {
    let mut rules = Rules::default();
    allow.iter().for_each(|text| rules.allow(text).unwrap());
    Policy { rules, files: None }
}

fn admit(policy: &Policy, pairs: &[(&str, &str)]) -> Admitted {
    policy.admit(&annotations(pairs), &Extensions::default(), true).unwrap()
}

#[test]
fn nothing_acts_that_was_not_allowed() {
    let hostile = [
        (annotation::LAYERS, "/"),
        (annotation::UPPER, "tmpfs"),
        (annotation::SHOW, "true"),
        (annotation::USERNS, "auto"),
        (annotation::NETWORK, "host"),
        (annotation::NETWORK_PUBLISH, "22:22"),
        (annotation::NETWORK_ADDRESS, "10.0.0.1"),
        (annotation::NETWORK_DNS, "1.1.1.1"),
        (annotation::NETWORK_DNS_SEARCH, "a"),
        (annotation::NETWORK_HOSTS, "a:1.1.1.1"),
        (annotation::NETWORK_RATE, "1mbit"),
        (annotation::LANDLOCK, "{}"),
        ("org.systemd.property.SuccessAction", "'reboot'"),
    ];
    let admitted = admit(&Policy::default(), &hostile);
    assert_eq!(admitted.grant, OperatorGrant::default());
    let [warning] = &admitted.warnings[..] else { panic!("{:?}", admitted.warnings) };
    hostile.iter().for_each(|(key, _)| assert!(warning.contains(key), "{key}: {warning}"));
    for (key, value) in hostile {
        let one = admit(&Policy::default(), &[(key, value)]);
        assert_eq!(one.grant, OperatorGrant::default());
        let wanted = "ignored: the operator has not allowed it (--allow-annotation)";
        assert_eq!(one.warnings, [format!("annotation {key} {wanted}")]);
        // A prefix never grants an annotation that affects the host.
        let prefix = admit(&policy(&["io.aril.*", "org.systemd.property.*"]), &[(key, value)]);
        let reaches_host = annotation::class(key, value) == Some(Class::Host);
        assert_eq!(prefix.grant == OperatorGrant::default(), reaches_host, "{key}");
        assert_eq!(prefix.warnings.len(), usize::from(reaches_host));
        // The full key grants that annotation, and no other.
        let named = admit(&policy(&[key]), &hostile);
        let mut alone = Extensions::default();
        alone.annotate(key, value);
        assert_eq!(named.grant, OperatorGrant(alone), "{key}");
    }
}

#[test]
fn options_are_the_operators_and_count_more() {
    let options = Extensions { network: Some("none".into()), ..Extensions::default() };
    let hostile = annotations(&[(annotation::NETWORK, "host"), (annotation::LAYERS, "/")]);
    let admitted = Policy::default().admit(&hostile, &options, false).unwrap();
    assert_eq!(admitted.grant, OperatorGrant(options.clone()));
    let admitted = policy(&[annotation::NETWORK]).admit(&hostile, &options, false).unwrap();
    assert_eq!(admitted.grant, OperatorGrant(options));
}

#[test]
fn what_is_harmless_acts_unless_it_is_denied() {
    let pairs = [(annotation::KEEP_GROUPS, "1"), ("org.systemd.property.TimeoutStopSec", "1")];
    let admitted = admit(&Policy::default(), &pairs);
    assert!(admitted.grant.keep_groups && admitted.grant.systemd.len() == 1);
    assert!(!admit(&Policy::default(), &[(annotation::KEEP_GROUPS, "0")]).grant.keep_groups);
    let mut deny = policy(&["io.aril.*"]);
    deny.rules.deny("run.oci.*").unwrap();
    deny.rules.deny(annotation::LANDLOCK).unwrap();
    let admitted = admit(&deny, &[pairs[0], (annotation::LANDLOCK, "{}")]);
    assert_eq!(admitted.grant, OperatorGrant::default());
    assert!(admitted.warnings[0].contains("io.aril.landlock, run.oci.keep_original_groups"));
    // Without a systemd unit, properties are ignored without a warning.
    let without = Policy::default()
        .admit(&annotations(&[("org.systemd.property.X", "1")]), &Extensions::default(), false)
        .unwrap();
    assert!(without.warnings.is_empty() && without.grant.systemd.is_empty());
}

#[test]
fn strict_is_refused() {
    let mut strict = policy(&[annotation::NETWORK]);
    strict.rules.be_strict();
    let of =
        |pairs: &[(&str, &str)]| strict.admit(&annotations(pairs), &Extensions::default(), false);
    assert!(of(&[(annotation::NETWORK, "none"), ("other", "x")]).is_ok());
    for key in [annotation::LAYERS, "io.aril.unknown"] {
        let error = of(&[(key, "x")]).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("--strict-annotations"), "{error}");
    }
}

#[test]
fn an_author_cannot_flood_the_log() {
    let many: HashMap<_, _> =
        (0..500).map(|n| (format!("io.aril.{n:03}{}", "x".repeat(5000)), String::new())).collect();
    let admitted = Policy::default().admit(&many, &Extensions::default(), false).unwrap();
    let [warning] = &admitted.warnings[..] else { panic!() };
    assert!(warning.len() < 2000 && warning.contains("and 484 more"), "{warning}");
}

#[test]
fn patterns() {
    for text in ["", "*", "io.aril.network.*x", "io.*.network", "io.aril.netwrok", "IO.ARIL.*"] {
        let error = Pattern::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
    let network = policy(&[annotation::NETWORK]);
    let pairs = [(annotation::NETWORK, "bridge"), (annotation::NETWORK_PUBLISH, "8080:80")];
    let admitted = admit(&network, &pairs);
    assert_eq!(
        (admitted.grant.network.as_deref(), &admitted.grant.publish),
        (Some("bridge"), &None)
    );
    assert!(admit(&policy(&["io.aril.network*"]), &pairs).grant.publish.is_some());
    assert!(admit(&policy(&["io.aril.network.*"]), &pairs).grant.network.is_none());
}

/// Directory of one test, in a directory that other users can write, like /tmp.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> Self {
        let path = Path::new("/tmp").canonicalize().unwrap();
        let path = path.join(format!("aril-grant-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.join("aril.conf");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn read(path: &Path) -> Result<Option<Rules>> {
    let owner = nix::unistd::geteuid().as_raw();
    ConfigFile { path: path.to_owned(), owner, optional: false, unmapped: None }.read()
}

fn refusal(path: &Path) -> String {
    read(path).unwrap_err().to_string()
}

#[test]
fn directives() {
    let directory = TestDirectory::new("directives");
    let text = "# rules\n\n allow-annotation  io.aril.landlock # why\ndeny-annotation run.oci.*\nstrict-annotations\n";
    let rules = read(&directory.file(text)).unwrap().unwrap();
    let mut wanted = Rules::default();
    wanted.allow("io.aril.landlock").unwrap();
    wanted.deny("run.oci.*").unwrap();
    wanted.be_strict();
    assert_eq!(rules, wanted);
    for bad in [
        "allow-annotation",
        "allow-annotation a b",
        "strict-annotations yes",
        "x",
        "allow-annotation x",
    ] {
        let said = refusal(&directory.file(&format!("\n{bad}\n")));
        assert!(said.contains("line 2: invalid") && said.contains("aril.conf"), "{said}");
    }
    assert_eq!(read(&directory.0.join("none")).unwrap(), None);
    assert_eq!(read(&directory.0.join("no/such/file")).unwrap(), None);
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let directory = TestDirectory::new("modes");
    let path = directory.file("allow-annotation io.aril.*\n");
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(refusal(&path).contains("other users can write"), "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for mode in [0o775, 0o757, 0o1777] {
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).unwrap();
        assert!(refusal(&path).contains("other users can write"), "{mode:o}");
    }
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
    let link = directory.0.join("link");
    symlink(&path, &link).unwrap();
    assert!(refusal(&link).contains("is a symbolic link"));
    let (inner, behind) = (directory.0.join("inner"), directory.0.join("behind"));
    fs::create_dir(&inner).unwrap();
    symlink(&inner, &behind).unwrap();
    assert!(refusal(&behind.join("aril.conf")).contains("is a symbolic link"));
    assert!(refusal(&inner).contains("not a regular file"));
    nix::unistd::mkfifo(&inner.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    assert!(refusal(&inner.join("fifo")).contains("not a regular file"));
    assert!(read(&path).unwrap().is_some());
    if nix::unistd::geteuid().is_root() {
        for owned in [&path, &directory.0] {
            chown(owned, Some(4321), None).unwrap();
            assert!(refusal(&path).contains("belongs to user 4321"));
            let skipped =
                ConfigFile { path: path.clone(), owner: 0, optional: true, unmapped: None };
            assert_eq!(skipped.read().unwrap(), None);
            chown(owned, Some(0), None).unwrap();
        }
        // The owner of the file can be a user, but only the expected one.
        chown(&path, Some(4321), None).unwrap();
        chown(&directory.0, Some(4321), None).unwrap();
        let of = |owner| {
            ConfigFile { path: path.clone(), owner, optional: false, unmapped: None }.read()
        };
        assert!(of(4321).unwrap().is_some() && of(4322).is_err());
        let above =
            ConfigFile { path: path.clone(), owner: 4322, optional: false, unmapped: Some(4321) };
        assert!(above.read().is_err());
    }
}
