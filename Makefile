# `make help` lists the targets.

# rust-toolchain.toml names a release, which rustup fetches. Where it cannot, its default toolchain is used instead.
ifndef RUSTUP_TOOLCHAIN
OTHER := $(shell ! command -v rustup > /dev/null || cargo --version > /dev/null || rustup default | cut -d ' ' -f 1)
ifneq ($(OTHER),)
$(warning the release of rust-toolchain.toml cannot be installed: using $(OTHER))
export RUSTUP_TOOLCHAIN := $(OTHER)
endif
endif

# A musl binary starts 0.3 ms sooner than a static glibc one (docs/performance.md): it is built
# where the target is installed or rustup can add it.
HOST    := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
MUSL    := $(HOST:-gnu=-musl)
has      = test -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)"
ifndef TARGET
TARGET  := $(shell $(has) || rustup target add $(MUSL) >/dev/null 2>&1; $(has) && echo $(MUSL) || echo $(HOST))
endif
PREFIX  ?= /usr/local
DESTDIR ?=

OUT    := target/$(TARGET)/release
# What `make build` leaves for `make install`, laid out as below PREFIX.
DIST   := target/dist
ARIL   := $(OUT)/aril
SHIM   := $(OUT)/containerd-shim-aril-v2
CNI    := $(OUT)/aril-cni
BUNDLE := bundles/busybox
CARGO  ?= cargo

# Everything that the tests call and a bare Debian does not have: what skips name, and no less (tidy.rs compares).
PACKAGES := apparmor attr busybox-static conmon containerd containernetworking-plugins crun curl docker.io \
	e2fsprogs fish g++ iproute2 jq mmdebstrap mount nftables passt podman procps python3 python3-minimal \
	python3-seccomp qemu-system-x86 runc strace stress-ng tar uidmap umoci util-linux xz-utils zsh zstd
# Engines need what they recommend: Debian 13 has the command docker in a package of its own, both have networks so.
ENGINES := containerd docker.io podman

# The black-box tests and the benchmarks drive this binary.
export RUNTIME ?= $(CURDIR)/$(ARIL)

.DEFAULT_GOAL := help
.PHONY: help build binaries bundle demo test test-engines fresh mutants races faults check fuzz bench bench-systemd bench-network floor layout \
	install uninstall clean demo-tools test-tools rust-target

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

build: binaries ## build the static release binaries (runtime, containerd shim, CNI plugin), man pages and completions
	@rm -rf $(DIST) && install -D -m 0755 -t $(DIST)/bin $(ARIL) $(SHIM) $(CNI)
	$(CARGO) run --quiet --locked --package aril --example aril-docs $(DIST)
	@ls -l $(ARIL) $(SHIM) $(CNI)

binaries: rust-target
	$(CARGO) build --release --locked --package aril --target $(TARGET)

bundle: demo-tools ## make bundles/busybox/rootfs from Debian's busybox-static
	@mkdir -p $(addprefix $(BUNDLE)/rootfs/,bin dev etc proc sys tmp)
	@cp "$$(command -v busybox)" $(BUNDLE)/rootfs/bin/busybox
	@cd $(BUNDLE)/rootfs/bin && for applet in $$(./busybox --list); do \
		[ "$$applet" = busybox ] || ln -sf busybox "$$applet"; done
	@printf 'root:x:0:0:root:/:/bin/sh\n' > $(BUNDLE)/rootfs/etc/passwd
	@printf 'root:x:0:\n' > $(BUNDLE)/rootfs/etc/group

demo: binaries bundle ## run a busybox container that looks around, then show what its start cost
	$(ARIL) run --bundle $(BUNDLE) aril-demo-$$$$
	@printf '\n\033[1mwhere the time went:\033[0m\n'
	$(ARIL) run --timeline --bundle $(BUNDLE) aril-demo-$$$$ > /dev/null

# Unit tests one at a time: a cloned process has the locks of the threads that it has not.
TOOLS := $(basename $(notdir $(wildcard runtime-tests/src/bin/*)))

test: test-tools binaries bundle ## format, lints and all tests, as root, on any Debian machine
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	runtime-tests/fuzz/run.sh check
	WHOLE_TABLE=1 $(CARGO) test --workspace --locked --no-fail-fast --lib --examples -- --test-threads=1 --show-output
	WHOLE_TABLE=1 $(CARGO) test --workspace --locked --no-fail-fast --test '*' $(TOOLS:%=--bin %) -- --show-output
	@$(MAKE) --no-print-directory test-engines vm-part

test-engines: binaries test-tools ## Docker, containerd, Kubernetes' interface and Podman on it, privately (CONTAINERD=DIR for another than Debian's, CRIO=DIR for CRI-O)
	PATH="$(subst : /,:/,$(foreach dir,$(CONTAINERD) $(CRIO),$(abspath $(dir)):))$$PATH" ENGINES=1 $(CARGO) test --locked --package runtime-tests --test engines -- $(TESTS)

fresh: ## what README.md promises, on a new Debian 12 and a new Debian 13 in namespaces (RELEASES=trixie for one)
	runtime-tests/fresh.sh $(RELEASES)

mutants: test-tools ## take our protections out one by one; the tests of docs/cves.md must notice (MUTANTS='name ...')
	$(CARGO) run --quiet --locked --package runtime-tests --bin mutants -- $(MUTANTS)

races: binaries test-tools ## the races of docs/cves.md, with ten thousand starts each
	ARIL_RACES=10000 $(CARGO) test --locked --package runtime-tests --test suite -- cves::paths cves::devices

load-network: binaries test-tools ## a thousand containers on one network, up and down, and runtimes killed meanwhile
	ARIL_NETWORK_LOAD=1000 $(CARGO) test --locked --package runtime-tests --test suite -- network::load --nocapture

faults: binaries test-tools ## kill, refuse and hold every system call of every command (VERBS='create:plain ...', SECONDS=N for some at random)
	$(CARGO) run --quiet --locked --package runtime-tests --bin faults -- $(if $(VERBS),--verbs '$(VERBS)') \
		$(if $(SECONDS),--seconds $(SECONDS)) $(FAULTS)

check: ## type-check and lint only
	$(CARGO) clippy --workspace --all-targets --locked

fuzz: rust-target ## fuzz every input for FUZZ_SECONDS each (30); FUZZ='TARGET...' for some
	runtime-tests/fuzz/run.sh $(or $(FUZZ_SECONDS),30) $(FUZZ)

floor: rust-target
	$(CARGO) build --release --locked --package runtime-tests --bins --target $(TARGET)

# With symbols, in a directory of its own. Cargo does not know that the binaries depend on the script.
layout: floor bundle ## write .cargo/start.ld: the functions that a start executes, for the linker (x86_64, some minutes)
	$(CARGO) build --release --locked --package aril --bin aril --target $(TARGET) --target-dir target/layout \
		--config 'profile.release.strip="none"'
	$(OUT)/layout target/layout/$(TARGET)/release/aril $(BUNDLE)/rootfs .cargo/start.ld
	touch src/bin/*.rs

bench: binaries floor bundle ## floor, aril and the peers side by side; BENCH='--peer NAME=PATH --ops run ...'
	$(OUT)/bench --aril $(RUNTIME) --bundle $(BUNDLE) --output docs/bench $(BENCH)

bench-systemd: binaries floor bundle ## aril, crun and runc by the systemd driver, on a systemd of its own on this machine's kernel
	runtime-tests/vm/contained.sh $(OUT)/bench --systemd --aril $(RUNTIME) --bundle $(BUNDLE) --output /out $(BENCH)

bench-network: binaries floor bundle ## what a network adds to a start, beside CNI plugins and netavark, and with 999 others
	unshare --net --mount --propagation private $(OUT)/networks $(ROUNDS)

install: ## copy what `make build` made into PREFIX (default /usr/local): binaries, man pages, completions; builds nothing
	@test -d $(DIST) || { echo 'nothing is built yet: run make build first'; exit 1; }
	@cd $(DIST) && find . -type f | while read -r file; do \
		case $$file in ./bin/*) mode=0755 ;; *) mode=0644 ;; esac; \
		install -v -D -m $$mode "$$file" "$(DESTDIR)$(PREFIX)/$$file" || exit; \
	done

uninstall: ## remove them again
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(ARIL) $(SHIM) $(CNI)))
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/aril.1 $(DESTDIR)$(PREFIX)/share/man/man1/aril-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/aril \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_aril \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/aril.fish

clean: ## remove what was built
	$(CARGO) clean
	rm -rf $(BUNDLE)/rootfs

# What a bare Debian machine lacks; nothing is asked of apt when nothing is missing.
APT_INSTALL = missing=''; for package in $(1); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	done; [ -z "$$missing" ] || { echo "installing:$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) $$missing > /dev/null; }

rust-target:
	@command -v $(CARGO) > /dev/null || { echo 'cargo is missing: install Rust 1.91 or newer (rustup)'; exit 1; }
	@command -v cc > /dev/null || { $(call APT_INSTALL,gcc libc6-dev); }

demo-tools:
	@$(call APT_INSTALL,busybox-static)

test-tools:
	@$(call APT_INSTALL,$(filter-out $(ENGINES),$(PACKAGES)),--no-install-recommends)
	@$(call APT_INSTALL,$(ENGINES))

include runtime-tests/vm/vm.mk
