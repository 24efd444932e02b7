//! Kinds of containers.

use std::path::PathBuf;

use runtime_tests::{Container, View};
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Plain,
    /// Its upper directory is removed with it.
    Layers,
    /// With a volume that is filled already.
    Volume,
    /// With a volume that is created, and filled from the image.
    FreshVolume,
    /// On a bridge network, with a published port.
    Bridge,
    UserNamespace,
    Terminal,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Layers => "layers",
            Self::Volume => "volume",
            Self::FreshVolume => "fresh-volume",
            Self::Bridge => "bridge",
            Self::UserNamespace => "userns",
            Self::Terminal => "terminal",
        }
    }

    /// Flags of `run` and `create`.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Layers => &["--upper", "ephemeral"],
            Self::Volume => &["-v", "data:/mnt"],
            Self::FreshVolume => &["-v", "fresh:/mnt"],
            Self::Bridge => {
                &["--network", "bridge", "-p", "8091:80", "--network-address", "10.213.0.77"]
            }
            Self::Plain | Self::UserNamespace | Self::Terminal => &[],
        }
    }

    /// Commands that remove what outlives the container on purpose.
    pub fn after(self) -> &'static [&'static str] {
        match self {
            Self::FreshVolume => &["volume rm fresh"],
            _ => &[],
        }
    }

    /// A container of this kind in the state root `root`, which runs `words`.
    pub fn container(self, view: View, root: PathBuf, words: &[&str]) -> Container {
        let mut container = Container::new(view).args(words);
        container.root = root;
        container.id = "c".to_owned();
        container = match self {
            Self::Layers => container.edit(|spec| spec["root"]["readonly"] = json!(false)),
            Self::UserNamespace => container.in_user_namespace(200_000),
            Self::Terminal => container.edit(|spec| spec["process"]["terminal"] = json!(true)),
            _ => container,
        };
        std::fs::write(container.rootfs().join("mnt/file"), "of the image").expect("a file");
        container.write_config();
        container
    }
}
