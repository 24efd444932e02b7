"""libseccomp as a reference: a JSON request on each line of stdin, a JSON answer on each of stdout.

{"names": [...]}
    -> {"x86_64": {"read": 0, ...}, ...}: the names that libseccomp knows at all, each with its
       number where the architecture has the call
{"profile": <linux.seccomp>, "arches": ["x86_64", ...]}
    -> {"program": [[code, jt, jf, k], ...]} or {"refused": why}
"""

import json
import struct
import sys
import tempfile

import seccomp

ARCHES = ["x86_64", "x86", "x32", "aarch64", "arm", "riscv64"]
OPERATORS = {"MASKED_EQ": seccomp.MASKED_EQ, "NE": seccomp.NE, "LT": seccomp.LT, "LE": seccomp.LE,
             "EQ": seccomp.EQ, "GE": seccomp.GE, "GT": seccomp.GT}


def arch(name):
    return getattr(seccomp.Arch, name.upper())


def action(name, errno):
    name = name.removeprefix("SCMP_ACT_")
    if name in ("ERRNO", "TRACE"):
        return getattr(seccomp, name)((1 if errno is None else errno) & 0xffff)
    return getattr(seccomp, "KILL" if name == "KILL_THREAD" else name)


def condition(arg):
    op = arg["op"].removeprefix("SCMP_CMP_")
    return seccomp.Arg(arg["index"], OPERATORS[op], arg["value"], arg.get("valueTwo") or 0)


def add(reference, default, rule):
    decided = action(rule["action"], rule.get("errnoRet"))
    if decided == default:
        return
    args = rule.get("args") or []
    indexes = {arg["index"] for arg in args}
    alternatives = [args] if len(indexes) == len(args) else [[arg] for arg in args]
    for name in rule["names"]:
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) == -1:
            continue
        for conditions in alternatives:
            try:
                reference.add_rule(decided, name, *[condition(arg) for arg in conditions])
            except (OSError, RuntimeError, ValueError) as error:
                raise ValueError(f"{name}, {rule}: {error}") from None


def program(profile, arches):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    reference = seccomp.SyscallFilter(default)
    reference.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)
    for name in arches:
        if not reference.exist_arch(arch(name)):
            reference.add_arch(arch(name))
    if "x86_64" not in arches:
        reference.remove_arch(seccomp.Arch.X86_64)
    for rule in profile.get("syscalls") or []:
        add(reference, default, rule)
    with tempfile.TemporaryFile() as file:
        reference.export_bpf(file)
        file.seek(0)
        return list(struct.iter_unpack("<HBBI", file.read()))


def numbers(names):
    known = [n for n in names if seccomp.resolve_syscall(seccomp.Arch.NATIVE, n) != -1]
    resolve = {a: {n: seccomp.resolve_syscall(arch(a), n) for n in known} for a in ARCHES}
    return {a: {n: k for n, k in ks.items() if k >= 0} for a, ks in resolve.items()} | {"known": known}


def answer(request):
    if "names" in request:
        return numbers(request["names"])
    try:
        return {"program": program(request["profile"], request["arches"])}
    except ValueError as error:
        return {"refused": str(error)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
