//! Named volumes.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use runtime_tests::{Call, Container, Output, View, on_the_host};
use serde_json::Value;

/// With a place for volumes of its own.
struct Fixture {
    c: Container,
    volumes: PathBuf,
}

impl Fixture {
    fn new(view: View) -> Option<Self> {
        let c = Container::new(view);
        let volumes = c.path("volumes");
        c.runtime.only_aril("volumes are an engine's elsewhere").then_some(Self { c, volumes })
    }

    fn call(&self, args: &[&str]) -> Call {
        self.c.call(args).env("ARIL_VOLUMES", &self.volumes)
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        self.run_call(options, script).output()
    }

    fn run_call(&self, options: &[&str], script: &str) -> Call {
        let rootfs = self.c.rootfs();
        self.call(&["run", "--rootfs", rootfs.to_str().expect("utf-8")])
            .args(options)
            .args([&self.c.id, "--", "sh", "-c", script])
    }

    fn data(&self, name: &str) -> PathBuf {
        self.volumes.join(name).join("data")
    }
}

/// CVE-2021-41091: what containers write to a volume may be set-user-ID.
#[test]
fn is_closed_to_other_users() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let mode = |path: &Path| fs::metadata(path).expect("stat").mode() & 0o7777;
        let directory = f.volumes.join("data");
        f.call(&["volume", "create", "data"]).in_shell("umask 0; exec \"$@\"").ok();
        assert_eq!(mode(&directory), 0o700);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("chmod");
        f.run(&["-v", "data:/data"], "true").ok();
        assert_eq!(mode(&directory), 0o700);
        nix::unistd::chown(&directory, Some(65534.into()), None).expect("chown");
        f.run(&["-v", "data:/data"], "true").exits(1).says("belongs to user 65534");
        nix::unistd::chown(&directory, Some(0.into()), None).expect("chown");
    });
}

#[test]
fn outlives_its_containers() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        f.run(&["-v", "data:/data"], "echo kept > /data/file").ok();
        f.run(
            &["-v", "data:/elsewhere:ro"],
            "cat /elsewhere/file; echo > /elsewhere/x 2> /dev/null",
        )
        .exits(1)
        .prints("kept\n");
        let listed = f.call(&["volume", "ls", "--format", "json"]).ok();
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        assert_eq!(listed[0]["name"], "data");
        assert_eq!(listed[0]["path"], f.data("data").to_str().expect("utf-8"));
        f.call(&["volume", "rm", "data"]).ok().prints("data\n");
        assert!(!f.volumes.join("data").exists());
        f.call(&["volume", "rm", "data"]).output().exits(1).says("volume does not exist: data");
    });
}

#[test]
fn the_first_use_takes_over_what_the_image_has() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let srv = f.c.rootfs().join("srv");
        fs::create_dir_all(srv.join("sub")).expect("a folder");
        fs::write(srv.join("sub/file"), "of the image\n").expect("a file");
        fs::set_permissions(srv.join("sub/file"), fs::Permissions::from_mode(0o4750))
            .expect("chmod");
        std::os::unix::fs::chown(srv.join("sub/file"), Some(8), Some(9)).expect("chown");
        std::os::unix::fs::chown(&srv, Some(8), Some(8)).expect("chown");
        // Not to be followed to the host's own.
        symlink("/etc/shadow", srv.join("link")).expect("a link");
        f.run(&["-v", "v:/srv"], "cat /srv/sub/file; echo changed > /srv/sub/file")
            .ok()
            .prints("of the image\n");
        let file = fs::metadata(f.data("v").join("sub/file")).expect("stat");
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (8, 9, 0o750));
        assert_eq!(
            fs::read_link(f.data("v").join("link")).expect("a link"),
            PathBuf::from("/etc/shadow")
        );
        assert_eq!(fs::metadata(f.data("v")).expect("stat").uid(), 8);
        // Only the first.
        f.run(&["-v", "v:/srv"], "cat /srv/sub/file").ok().prints("changed\n");
        assert_eq!(fs::read_to_string(srv.join("sub/file")).expect("the image"), "of the image\n");
    });
}

/// A hostile image's, which would fill the host's disk.
#[test]
fn the_first_use_leaves_holes_as_they_are() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let srv = f.c.rootfs().join("srv");
        fs::create_dir_all(&srv).expect("a folder");
        let file = fs::File::create(srv.join("huge")).expect("a file");
        file.write_all_at(b"begin", 0).expect("written");
        file.write_all_at(b"middle", 1 << 36).expect("written");
        file.set_len(1 << 40).expect("a length");
        fs::write(srv.join("empty"), "").expect("a file");
        f.run(&["-v", "v:/srv"], "head -c 5 /srv/huge; test ! -s /srv/empty").ok().prints("begin");
        let copy = fs::File::open(f.data("v").join("huge")).expect("the copy");
        let stat = copy.metadata().expect("stat");
        assert_eq!(stat.size(), 1 << 40);
        assert!(stat.blocks() < 1000, "{} blocks", stat.blocks());
        let mut middle = [0; 6];
        copy.read_exact_at(&mut middle, 1 << 36).expect("read");
        assert_eq!(&middle, b"middle");
    });
}

/// Emptied, or used where the image has nothing: as if it were new. Not while another container has it.
#[test]
fn an_empty_one_is_filled_again() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        fs::create_dir_all(f.c.rootfs().join("srv/folder")).expect("a folder");
        f.run(&["-v", "v:/nothing/here"], "ls /nothing/here").ok().prints("");
        f.run(&["-v", "v:/srv"], "ls /srv; rm -r /srv/folder").ok().prints("folder\n");
        f.run(&["-v", "v:/srv"], "ls /srv; rm -r /srv/folder").ok().prints("folder\n");
        f.run_call(&["-d", "-v", "v:/v"], "sleep 1000").ok();
        let rootfs = f.c.rootfs();
        let rootfs = rootfs.to_str().expect("utf-8");
        f.call(&["run", "--rootfs", rootfs, "-v", "v:/srv", "second", "--", "ls", "/srv"])
            .ok()
            .prints("");
        assert_eq!(fs::read_dir(f.data("v")).expect("the volume").count(), 0);
        f.c.delete_by_force().ok();
    });
}

#[test]
fn volume_over_a_symlink_stays_in_the_image() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let secret = f.c.directory("secret");
        fs::write(secret.join("file"), "of the host").expect("a file");
        symlink(&secret, f.c.rootfs().join("srv")).expect("a link");
        f.run(&["-v", "v:/srv"], "true").ok();
        assert_eq!(fs::read_dir(f.data("v")).expect("the volume").count(), 0);
    });
}

#[test]
fn volume_in_use_is_not_removed() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        f.call(&["volume", "create", "v"]).ok().prints("v\n");
        f.call(&["volume", "create", "v"]).output().exits(1).says("volume v already exists");
        f.run_call(&["-d", "-v", "v:/v"], "sleep 1000").ok();
        let refused = format!("volume v is in use by {}", f.c.id);
        f.call(&["volume", "rm", "v"]).output().exits(1).says(&refused);
        let shown = f.call(&["volume", "inspect", "v"]).ok();
        let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
        assert_eq!(shown[0]["users"][0], f.c.id.as_str());
        // A stopped container may be looked at still.
        f.c.kill("KILL").ok();
        f.c.wait_for("stopped");
        f.call(&["volume", "rm", "v"]).output().exits(1).says(&refused);
        f.c.delete().ok();
        f.call(&["volume", "rm", "v"]).ok();
    });
}

/// Killed while it copies, the next one finds all of it all the same.
#[test]
fn a_copy_that_was_cut_short_is_made_anew() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let srv = f.c.rootfs().join("srv");
        fs::create_dir(&srv).expect("a folder");
        for number in 0..300 {
            fs::write(srv.join(number.to_string()), "x").expect("a file");
        }
        let mut cut = 0;
        for tenths in 0..40 {
            let mut call = f.run_call(&["-d", "-v", "v:/srv"], "sleep 1000").spawn();
            std::thread::sleep(std::time::Duration::from_micros(tenths * 1500));
            if !call.ended() {
                call.signal(Signal::SIGKILL);
                cut += 1;
            }
            call.wait();
            f.c.delete_by_force().ok();
            f.c.leaves_nothing();
            if f.volumes.join("v/filled").exists() {
                break;
            }
        }
        assert!(cut > 0);
        f.run(&["-v", "v:/srv"], "ls /srv | wc -l").ok().prints("300\n");
    });
}

#[test]
fn a_folder_of_the_host_and_a_tmpfs() {
    on_the_host(|view| {
        let Some(f) = Fixture::new(view) else { return };
        let host = f.c.directory("host");
        fs::write(host.join("file"), "the host's\n").expect("a file");
        let volume = format!("{}:/host:ro", host.display());
        f.run(
            &["-v", &volume, "--tmpfs", "/scratch:64k"],
            "cat /host/file; touch /host/x 2> /dev/null || echo read-only; \
             head -c 1000000 /dev/zero 2> /dev/null > /scratch/x || echo full",
        )
        .ok()
        .prints("the host's\nread-only\nfull\n");
        assert!(!f.volumes.exists());
    });
}
