//! The same pods under CRI-O, configured as `docs/cri-o.md` says.

use runtime_tests::skip;

use super::{CRIO, IMAGE, Kind, Kubelet, OWN, PLUGINS, SHARED, kinds};
use crate::pages;
use crate::private::{Daemon, Driver, Place};

/// Podman and CRI-O have the same store of images.
pub const TOOLS: &[(&str, &str)] = &[("podman", "podman"), ("conmon", "conmon"), ("curl", "curl")];

/// Loads an archive of `docker save` into CRI-O's store, before CRI-O reads it.
pub fn import(place: &Place, archive: &str) {
    let (root, run) = (place.path("root"), place.path("run"));
    let policy = policy(place);
    let options = ["--root", &root, "--runroot", &run, "--storage-driver=vfs"];
    let podman = place.client("podman", &options);
    podman.run(&["load", "--signature-policy", &policy, "-i", archive]).ok();
    podman.run(&["tag", "localhost/local/box:1", IMAGE]).ok();
}

fn policy(place: &Place) -> String {
    place.file("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
}

pub fn start(kubelet: &Kubelet) -> Daemon {
    let place = kubelet.place;
    let path = |name: &str| place.path(name);
    let block = pages::block(kubelet.page.0, kubelet.page.1);
    let block = match place.driver {
        Driver::Tested => block.replace("/usr/local/bin/aril", &place.runtime()),
        Driver::Own => String::new(),
    };
    let conmon = which("conmon");
    let config = format!(
        "[crio]\nroot = \"{root}\"\nrunroot = \"{run}\"\nstorage_driver = \"vfs\"\nlog_dir = \"{logs}\"\n\
         [crio.api]\nlisten = \"{socket}\"\nstream_address = \"127.0.0.1\"\nstream_port = \"0\"\n\
         [crio.runtime]\ndefault_runtime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nconmon_cgroup = \"pod\"\n\
         pinns_path = \"{pinns}\"\napparmor_profile = \"unconfined\"\n\
         [crio.runtime.runtimes.runc]\nruntime_path = \"{runc}\"\nruntime_root = \"/run/runc\"\nmonitor_path = \"{conmon}\"\n\
         [crio.image]\npause_image = \"{IMAGE}\"\npause_command = \"/bin/sleep 1000000\"\nsignature_policy = \"{policy}\"\n\
         [crio.network]\nnetwork_dir = \"{networks}\"\nplugin_dirs = [\"{PLUGINS}\"]\n\
         [crio.nri]\nenable_nri = false\n{block}",
        root = path("root"),
        run = path("run"),
        logs = path("crio-logs"),
        socket = path("socket"),
        pinns = which("pinns"),
        runc = which("runc"),
        policy = policy(place),
        networks = path("networks"),
    );
    let config = place.file("crio.conf", &config);
    place.daemon("crio", &["--config", &config, "--config-dir", ""])
}

fn which(program: &str) -> String {
    skip::which(program).expect("looked for before").display().to_string()
}

/// Debian has no package of it.
fn is_present() -> bool {
    let there = ["crio", "pinns"].iter().all(|program| skip::which(program).is_some());
    if !there {
        skip::inapplicable(
            "no CRI-O in PATH, and Debian has no package of it: make test-engines CRIO=DIR",
        );
    }
    there
}

/// Root may lack CAP_SYS_RESOURCE.
fn has_all_capabilities() -> bool {
    let may = std::fs::write("/proc/thread-self/oom_score_adj", "-1").is_ok();
    if may {
        std::fs::write("/proc/thread-self/oom_score_adj", "0").expect("oom_score_adj");
    } else {
        skip::inapplicable("root has no CAP_SYS_RESOURCE here");
    }
    may
}

#[test]
fn a_pod() {
    if is_present() {
        super::a_session("cri::crio::a_pod", CRIO, OWN);
    }
}

/// The process of such a pod has the oom_score_adj -998.
#[test]
fn a_pod_of_shared_processes() {
    if is_present() && has_all_capabilities() {
        super::a_session("cri::crio::a_pod_of_shared_processes", CRIO, SHARED);
    }
}

#[test]
fn ends() {
    if is_present() {
        super::ends_by("cri::crio::ends", CRIO, OWN);
    }
}

#[test]
fn host_network() {
    if is_present() {
        kinds::of_kind("cri::crio::host_network", Kind::HostNetwork, CRIO);
    }
}

/// CRI-O gives it every capability that the kernel has, whatever its own are.
#[test]
fn privileged() {
    if is_present() && has_all_capabilities() {
        kinds::of_kind("cri::crio::privileged", Kind::Privileged, CRIO);
    }
}

#[test]
fn user_namespace() {
    if is_present() && kinds::runc_has_id_maps() {
        kinds::of_kind("cri::crio::user_namespace", Kind::UserNamespace, CRIO);
    }
}

#[test]
fn ephemeral_container() {
    if is_present() {
        kinds::joins_another("cri::crio::ephemeral_container", CRIO);
    }
}

#[test]
fn later() {
    if is_present() {
        kinds::changes("cri::crio::later", CRIO, OWN);
    }
}
