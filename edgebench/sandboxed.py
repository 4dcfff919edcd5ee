"""What runs in the process without rights: give them up, then load one program and run it once.

Standard library and torch alone; `sandbox.py` starts it by its source, so that nothing of edgebench has to be seen there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

UNABLE = 77
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWCGROUP = (1 << bit for bit in (17, 26, 27, 28, 29, 30, 25))
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
KILLED_WITH_PARENT, DUMPABLE, DROP_BOUND, NO_NEW_RIGHTS = 1, 4, 24, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "armv7l": 218, "ppc64le": 203, "riscv64": 41, "s390x": 217}

libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, result: int) -> None:
    """Raise OSError where a call of the C library failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or a folder again in another place."""
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    call(f"mount {target}", libc.mount(*words, ctypes.c_ulong(flags), options.encode()))


def leave() -> None:
    """Take namespaces of its own, as a user with no other."""
    user, group = os.getuid(), os.getgid()
    call("unshare", libc.unshare(NEWUSER | NEWNS | NEWNET | NEWPID | NEWIPC | NEWUTS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {user} 1"), ("gid_map", f"65534 {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as control:
            control.write(text)
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as control:
        control.write("0")  # none within this one, where it would have rights again


def shut_in(root: str, shown: list[str]) -> None:
    """See nothing but some folders, read-only, and a small empty /tmp."""
    mount("none", "/", None, RECURSIVE | PRIVATE)
    mount("none", root, "tmpfs", NO_SUID | NO_DEVICES, "size=1m,mode=755")
    scratch = f"{root}/tmp"  # noqa: S108 (its own, and empty)
    os.mkdir(scratch)
    mount("none", scratch, "tmpfs", NO_SUID | NO_DEVICES | NO_EXEC, "size=1m")  # before what may lie in it
    for path in shown:
        place = root + path
        if os.path.islink(path):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(os.readlink(path), place)
            continue
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
        mount(path, place, None, BIND | RECURSIVE)
        if not path.startswith("/dev/"):
            mount("none", place, None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES | kept(place))
    os.mkdir(f"{root}/old")
    number = PIVOT_ROOT[os.uname().machine]
    call("pivot_root", libc.syscall(ctypes.c_long(number), root.encode(), f"{root}/old".encode()))
    os.chdir("/")
    call("umount", libc.umount2(b"/old", DETACH))
    os.rmdir("/old")
    mount("none", "/", None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES)


def kept(place: str) -> int:
    """Return the flags that a mount of another namespace has and must keep."""
    found = os.statvfs(place).f_flag
    pairs = ((os.ST_NOEXEC, NO_EXEC), (os.ST_NOATIME, 1024), (os.ST_NODIRATIME, 2048), (os.ST_RELATIME, 1 << 21))
    return sum(flag for seen, flag in pairs if found & seen)


def drop() -> None:
    """Keep no capability, and no way to get one back; die with the parent."""
    for number in range(64):
        if libc.prctl(DROP_BOUND, number, 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", libc.capset(header, (ctypes.c_uint32 * 6)()))
    call("no_new_privs", libc.prctl(NO_NEW_RIGHTS, 1, 0, 0, 0))
    call("pdeathsig", libc.prctl(KILLED_WITH_PARENT, signal.SIGKILL, 0, 0, 0))


def limit(seconds: int) -> None:
    """Bound time, open files, and the size of files."""
    bounds = (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 1 << 16),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    )
    for kind, most in bounds:
        resource.setrlimit(kind, (most, most))


def run(content: bytes, spare: int, pages: int) -> None:
    """Load a program and run it once on zeros."""
    import io

    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with os.fdopen(pages, encoding="ascii") as taken:
        most = int(taken.read().split()[0]) * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    program = torch.export.load(io.BytesIO(content))
    names = program.graph_signature.user_inputs
    found = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    given = [torch.zeros([side if isinstance(side, int) else 2 for side in each.shape], dtype=each.dtype) for each in found]
    program.module()(*given)


def main(root: str, shown: list[str], spare: int, seconds: int, size: int) -> None:
    """Never return: the process ends as its child does, which is alone in its namespaces."""
    try:
        content = sys.stdin.buffer.read()
        leave()
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        pages = os.open("/proc/thread-self/statm", os.O_RDONLY)
        shut_in(root, shown)
        limit(seconds)
        drop()
    except (OSError, KeyError, AttributeError) as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(UNABLE)
    if len(content) != size:
        sys.exit("the file did not arrive whole")
    out = os.dup(1)
    os.dup2(2, 1)  # what the program prints is no answer
    run(content, spare, pages)
    os.write(out, b"ran\n")
    os._exit(0)


if __name__ == "__main__":
    import json

    main(**json.loads(sys.argv[1]))
