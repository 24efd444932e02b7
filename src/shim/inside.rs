//! Decides if the runtime mounts the rootfs, in the container's mount namespace alone. The host's mount table is then
//! not locked, does not grow, and contains no mount that could stay.
//!
//! The rootfs must be an overlay of directories only, the runtime must be Aril, and no hook of the host may need to
//! see it. `io.aril.rootfs.show`, if the operator allows it, shows the rootfs to the host in this case, too.

use serde_json::json;

use super::model::Config;
use super::options::Options;
use super::rootfs::Mount;
use crate::cli::policy::policy;
use crate::error::Result;
use crate::spec::Extensions;

/// Returns the options of `create` by which the runtime mounts the rootfs; `None` if the shim mounts it.
pub fn words(mounts: &[Mount], options: &Options, config: &Config) -> Option<Vec<String>> {
    let [mount] = mounts else { return None };
    let ours = options.binary_name.is_empty() && !options.no_pivot_root && !options.rootfs_on_host;
    let shown = || shown(options, config).unwrap_or(false);
    let unseen = !config.has_hooks() || shown();
    if !ours || !unseen || config.has_user_namespace() {
        return None;
    }
    overlay(mount)
}

/// Returns true if the runtime will show the rootfs to the host. The runtime reads the same annotation and reports
/// errors.
fn shown(options: &Options, config: &Config) -> Result<bool> {
    let policy = policy(options.rules()?);
    let admitted = policy.admit(&config.annotations, &Extensions::default(), false)?;
    Ok(admitted.grant.show.as_deref() == Some("true"))
}

fn overlay(mount: &Mount) -> Option<Vec<String>> {
    // A colon in a name has a backslash before it.
    let escaped = mount.options.iter().any(|option| option.contains('\\'));
    if mount.kind != "overlay" || !mount.target.is_empty() || escaped {
        return None;
    }
    let (mut layers, mut upper, mut work) = (None, None, None);
    for option in &mount.options {
        match option.split_once('=')? {
            ("lowerdir", value) => layers = Some(value),
            ("upperdir", value) => upper = Some(value),
            ("workdir", value) => work = Some(value),
            ("index", "off") => {}
            _ => return None,
        }
    }
    // The kernel expects the topmost layer first.
    let layers = layers?.rsplit(':').flat_map(|layer| ["--layer".to_owned(), layer.to_owned()]);
    let upper = json!({"upper": upper?, "work": work?}).to_string();
    Some(layers.chain(["--upper".to_owned(), upper]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(options: &[&str]) -> Mount {
        Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    const PLAIN: [&str; 4] =
        ["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"];

    #[test]
    fn an_overlay_of_directories_is_the_runtimes() {
        let words = words(&[mount(&PLAIN)], &Options::default(), &Config::default()).unwrap();
        let upper = r#"{"upper":"/s/3/fs","work":"/s/3/work"}"#;
        assert_eq!(words, ["--layer", "/s/1/fs", "--layer", "/s/2/fs", "--upper", upper]);
    }

    #[test]
    fn anything_else_is_ours() {
        let with = |option| {
            words(
                &[mount(&[&PLAIN[..], &[option]].concat())],
                &Options::default(),
                &Config::default(),
            )
        };
        for option in ["ro", "userxattr", "volatile", "context=x", "index=on", "lowerdir=/a\\:b"] {
            assert_eq!(with(option), None, "{option}");
        }
        let plain = [mount(&PLAIN)];
        let runc = Options { binary_name: "runc".into(), ..Options::default() };
        assert_eq!(words(&plain, &runc, &Config::default()), None);
        let told = Options { rootfs_on_host: true, ..Options::default() };
        assert_eq!(words(&plain, &told, &Config::default()), None);
        assert_eq!(words(&[], &Options::default(), &Config::default()), None);
        let view = [mount(&["lowerdir=/s/2/fs:/s/1/fs"])];
        assert_eq!(words(&view, &Options::default(), &Config::default()), None);
    }

    #[test]
    fn hooks_of_the_host_see_a_rootfs() {
        let by = |options: &Options, text: &str| {
            let config: Config = serde_json::from_str(text).unwrap();
            words(&[mount(&PLAIN)], options, &config).is_some()
        };
        let of = |text: &str| by(&Options::default(), text);
        assert!(of(r#"{"hooks":{"prestart":[]}}"#) && of(r#"{"hooks":null}"#));
        assert!(!of(r#"{"hooks":{"createRuntime":[{"path":"/x"}]}}"#));
        assert!(!of(r#"{"linux":{"namespaces":[{"type":"user"}]}}"#));
        let shown = r#""annotations":{"io.aril.rootfs.show":"true"}"#;
        let hooked = format!(r#"{{"hooks":{{"prestart":[{{"path":"/x"}}]}},{shown}}}"#);
        // The author of a pod does not decide it.
        assert!(!of(&hooked));
        let allows =
            |key: &str| Options { allow_annotations: vec![key.to_owned()], ..Options::default() };
        assert!(by(&allows("io.aril.rootfs.show"), &hooked));
        assert!(!by(&allows("io.aril.*"), &hooked));
    }
}
