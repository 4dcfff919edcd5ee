"""The Python that a phone is brought: made of Debian packages here, by our own reading of them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edgebench.errors import InputError, TransportError
from edgebench.targets.transports._userland import mirror
from edgebench.targets.transports._userland.build import build
from edgebench.targets.transports._userland.packages import LOADERS, Package, Userland, userland

LIBRARIES = "usr/lib/aarch64-linux-gnu"
CONTENT = {
    f"{LIBRARIES}/libc.so.6": b"libc",
    f"{LIBRARIES}/libstdc++.so.6.0.33": b"stdc++",
    f"{LIBRARIES}/libbz2.so.1.0.4": b"bz2",
    f"{LIBRARIES}/libssl.so.3": b"not wanted",
    "usr/bin/python3.13": b"python",
    "usr/bin/pdb3.13": b"not wanted",
    "usr/lib/python3.13/os.py": b"os",
    "usr/lib/python3.13/json/__init__.py": b"json",
    "usr/lib/python3.13/test/test_os.py": b"not wanted",
    "usr/lib/python3.13/lib-dynload/_ssl.cpython-313-aarch64-linux-gnu.so": b"not wanted",
    "usr/share/doc/libx/copyright": b"as it is",
    "../outside": b"hostile",
    "usr/lib/python3.13/../../../../outside": b"hostile",
}
LINKS = {
    f"{LIBRARIES}/libstdc++.so.6": "libstdc++.so.6.0.33",
    f"{LIBRARIES}/libbz2.so.1": "libbz2.so.1.0.4",
    f"{LIBRARIES}/libbz2.so.1.0": "libbz2.so.1.0.4",
}


def debian(content: Mapping[str, bytes], links: Mapping[str, str] = {}) -> bytes:
    """Write a Debian package: an `ar` archive with a compressed archive of the files in it."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:xz") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(data), 0o755 if "/bin/" in name else 0o644
            archive.addfile(entry, io.BytesIO(data))
        for name, origin in links.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, origin
            archive.addfile(entry)
    whole = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", inner.getvalue())):
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return whole


def made_of(content: bytes, file: str = "libx_1_arm64.deb") -> Userland:
    package = Package("libx", "1", "x", "MIT", f"pool/{file}", hashlib.sha256(content).hexdigest(), len(content))
    return Userland("arm64", "3.13", (package,))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as the mirror, and keep what is fetched in a folder of the test's own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    folder = tmp_path / "mirror"
    (folder / "pool").mkdir(parents=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(mirror.MIRROR, f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield folder
        server.shutdown()
        thread.join()


def unseen(done: int, total: int) -> None:
    """Tell nobody what is fetched."""


def test_a_userland_is_what_its_packages_hold_of_python_and_libraries(tmp_path: Path) -> None:
    content = debian(CONTENT, LINKS)
    (tmp_path / "libx_1_arm64.deb").write_bytes(content)
    folder = tmp_path / "made"
    build(made_of(content), tmp_path, folder)
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    assert set(found) == {
        *("bin/python3", "bin/python3.13", "lib/libc.so.6", "lib/libstdc++.so.6", "lib/libbz2.so.1.0"),
        *("lib/python3.13/os.py", "lib/python3.13/json/__init__.py", "share/libx.txt"),
    }
    assert found["lib/libstdc++.so.6"].read_bytes() == b"stdc++"
    assert not any(path.is_symlink() for path in found.values())
    assert [path.stat().st_mode & 0o111 != 0 for path in (found["bin/python3"], found["bin/python3.13"])] == [True, True]
    assert not (tmp_path / "outside").exists() and not (tmp_path.parent / "outside").exists()


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libx_1_arm64.deb").write_bytes(b"<html>a proxy's page</html>")
    with pytest.raises(InputError, match="not a Debian package"):
        build(made_of(b""), tmp_path, tmp_path / "made")


def test_packages_are_fetched_once_and_by_their_hash(served: Path) -> None:
    content = debian(CONTENT, LINKS)
    (served / "pool" / "libx_1_arm64.deb").write_bytes(content)
    folder = mirror.made(made_of(content), None, unseen)
    assert (folder / "bin" / "python3").is_file()
    assert b"  lib/python3.13/os.py\n" in (folder / ".files").read_bytes()
    (served / "pool" / "libx_1_arm64.deb").unlink()
    assert mirror.made(made_of(content), None, unseen) == folder


def test_a_package_with_other_bytes_is_not_taken(served: Path) -> None:
    content = debian(CONTENT, LINKS)
    (served / "pool" / "libx_1_arm64.deb").write_bytes(debian({**CONTENT, "usr/bin/python3.13": b"another"}, LINKS))
    with pytest.raises(TransportError, match=r"libx 1: the mirror of Debian sent other bytes"):
        mirror.made(made_of(content), None, unseen)
    assert not list(mirror.cache().glob("*/.files"))


def test_a_version_that_vanished_is_one_clear_line(served: Path) -> None:
    with pytest.raises(TransportError, match=r"libx 1: the mirror of Debian has it no more; .* snapshots .*--userland") as caught:
        mirror.made(made_of(debian(CONTENT)), None, unseen)
    assert "\n" not in str(caught.value)


def test_a_mirror_that_is_not_there_is_one_clear_line(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirror.MIRROR, "http://127.0.0.1:9/")
    with pytest.raises(TransportError, match="cannot be reached"):
        mirror.made(made_of(debian(CONTENT)), None, unseen)
    monkeypatch.setenv(mirror.MIRROR, "file:///etc")
    with pytest.raises(InputError, match="begins with http"):
        mirror.made(made_of(debian(CONTENT)), None, unseen)


def test_a_folder_of_packages_takes_the_place_of_a_mirror(served: Path, tmp_path: Path) -> None:
    content, given = debian(CONTENT, LINKS), tmp_path / "given"
    given.mkdir()
    with pytest.raises(InputError, match=r"libx_1_arm64\.deb: not there, or with another hash"):
        mirror.made(made_of(content), given, unseen)
    (given / "libx_1_arm64.deb").write_bytes(content)
    assert (mirror.made(made_of(content), given, unseen) / "bin" / "python3").is_file()


def test_the_mirror_is_apts_own_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mirror.MIRROR, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"name one by {mirror.MIRROR}, or a folder .*--userland"):
        mirror.mirrors()
    program = tmp_path / "apt-get"
    program.write_text(
        "#!/bin/sh\nprintf 'http://one.example/debian\\nhttp://one.example/debian\\nhttp://two.example/debian\\n'\n"
    )
    program.chmod(0o755)
    assert mirror.mirrors() == ("http://one.example/debian", "http://two.example/debian")


@pytest.mark.parametrize("architecture", LOADERS)
def test_every_package_is_pinned_with_its_licence_and_source(architecture: str) -> None:
    packages = userland(architecture).packages
    assert {"libc6", "libpython3.13-stdlib", "python3.13-minimal", "libstdc++6", "libgcc-s1"} <= {each.name for each in packages}
    for each in packages:
        assert len(bytes.fromhex(each.sha256)) == 32
        assert each.licence and each.source and each.version and each.path.startswith("pool/")
        assert each.file.endswith(f"_{architecture}.deb")


def test_the_wrapper_starts_a_python_by_its_own_loader_and_lets_no_setting_of_the_shell_in(tmp_path: Path) -> None:
    home = tmp_path / "edgebench" / "python" / "abc"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    wrapper = home / "bin" / "python3"
    wrapper.write_text(userland("arm64").wrapper.replace("#!/system/bin/sh", "#!/bin/sh"))
    loader = home / "lib" / LOADERS["arm64"]
    loader.write_text('#!/bin/sh\necho "$@"; env\n')
    for program in (wrapper, loader):
        program.chmod(0o755)
    link = tmp_path / "venv-python"
    link.symlink_to(wrapper)
    given = {
        "LD_PRELOAD": "",
        "LD_LIBRARY_PATH": "/vendor/lib",
        "HOME": "/",
        "TMPDIR": "/data/local/tmp",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([link, "-c", "x y"], env=given, capture_output=True, text=True, timeout=20, check=True)
    first, *rest = done.stdout.splitlines()
    assert first == f"--library-path {home}/lib --argv0 {link} {home}/bin/python3.13 -c x y"
    base = tmp_path / "edgebench"
    wanted = {f"PYTHONHOME={home}", "PYTHONUTF8=1", f"HOME={base}", f"TMPDIR={base}/tmp", "ORT_DISABLE_TELEMETRY=1"}
    assert wanted <= set(rest)
    assert not any(line.startswith("LD_") for line in rest)
