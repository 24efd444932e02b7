# Targets on a Debian host of their own, a virtual machine: see docs/testing.md.

VM := runtime-tests/vm

# The reason of a skip (77) has been printed.
vm-run-tests = WHOLE_TABLE=1 VM_KERNEL=$(1) $(VM)/test.sh $(TESTS) || [ $$? = 77 ]

.PHONY: vm-test
vm-test: binaries ## the tests on a systemd and cgroup v2 host in QEMU (TESTS=filter VM_KERNEL=6.1,6.12,newest RUNTIME=)
	@$(call vm-run-tests,$${VM_KERNEL:-6.12})

.PHONY: vm-matrix
vm-matrix: binaries ## vm-test on each kernel: 6.1, 6.12 and the newest that Debian has
	@failed=; for kernel in 6.1 6.12 newest; do \
		{ $(call vm-run-tests,$$kernel); } || failed="$$failed $$kernel"; \
	done; [ -z "$$failed" ] || { echo "vm-matrix: failed on$$failed" >&2; exit 1; }

# What no other host shows: systemd's cgroups, controllers on cgroup v2 alone, quotas, and an ordinary user with
# ranges of ids and a session; and that containers look as runc's there, too.
VM_PART := cgroup:: resources:: load:: pause:: events:: overlay::on_a_disk overlay::a_kept \
	rootless::with_ rootless::under_podman rootless::pasta_connects observer::kinds::

.PHONY: vm-part
vm-part: binaries ## the part of vm-test that needs such a host: make test has it
	@VM_KERNEL=6.12 VM_TIMEOUT=$${VM_TIMEOUT:-5400} $(VM)/test.sh $(VM_PART) || [ $$? = 77 ]

# AppArmor and SELinux are alternatives: a machine of its own, whose cache is beside the other's.
.PHONY: vm-selinux
vm-selinux: binaries ## the tests of labels on that host with SELinux in the place of AppArmor
	@VM_CACHE="$${VM_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/aril-vm}-selinux" \
		VM_PACKAGES='selinux-policy-default selinux-utils policycoreutils' \
		VM_BOOT='security=selinux selinux=1 enforcing=0' \
		$(VM)/test.sh $(or $(TESTS),lsm::) || [ $$? = 77 ]

.PHONY: vm-shell
vm-shell: ## a root shell on that host
	@$(VM)/vm.sh shell

.PHONY: vm-clean
vm-clean: ## remove the images
	@$(VM)/vm.sh clean
