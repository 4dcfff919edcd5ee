"""Bring agent, bundle and evaluation set to a device: by content, each once, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebench import discovery
from edgebench.errors import MeasureError
from edgebench.files import inside, storage, write_atomic
from edgebench.schema import Bundle, Target, Transport

MAIN = "import sys\nfrom edgebench_agent.supervisor import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Deployed:
    """Where things lie on the device, as the device names them."""

    agent: str
    model: str
    evaluation: str
    files: tuple[tuple[str, str], ...]
    """(path, sha256) of what the agent checks before it starts."""


def connect(target: Target, root: Path) -> Transport:
    """Open the target's transport; `root` is the device's cache folder where that is a local one."""
    plugin = discovery.load("edgebench.targets.transports", target.transport, "transport")
    transport: Transport = plugin.connect(target, root)
    return transport


def pack_agent(plugins: Sequence[str] = ()) -> bytes:
    """Pack the agent, and a target's own runtimes and meters, into one zip that Python runs.

    The same sources give the same bytes.
    """
    sources = {
        f"edgebench_agent/{entry.name}": entry.read_bytes()
        for entry in resources.files("edgebench.agent").iterdir()
        if entry.name.endswith(".py")
    }
    sources |= {f"edgebench_agent/{Path(plugin).name}": Path(plugin).read_bytes() for plugin in plugins}
    sources["__main__.py"] = MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, sources[name])
    return buffer.getvalue()


def deploy_agent(target: Target, transport: Transport) -> str:
    """Push the agent unless the device has it; returns its path there."""
    content = pack_agent(target.agent_plugins)
    return _push_bytes(transport, f"agents/{_short(content)}.pyz", content)


def deploy(target: Target, transport: Transport, folder: Path, bundle: Bundle, images: NDArray[np.uint8]) -> Deployed:
    """Push whatever of agent, bundle and evaluation set the device does not have yet."""
    content = np.ascontiguousarray(images).tobytes()
    home = f"bundles/{bundle.sha256[:16]}"
    with storage(Path(transport.path(""))):
        agent = deploy_agent(target, transport)
        for name in bundle.files:
            if not transport.has(f"{home}/{name}"):
                transport.push(inside(folder, name), f"{home}/{name}")
        evaluation = _push_bytes(transport, f"sets/{_short(content)}.u8", content)
    files = [(transport.path(f"{home}/{name}"), entry.sha256) for name, entry in bundle.files.items()]
    files.append((evaluation, hashlib.sha256(content).hexdigest()))
    return Deployed(agent, transport.path(f"{home}/{bundle.entry}"), evaluation, tuple(files))


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _push_bytes(transport: Transport, destination: str, content: bytes) -> str:
    if not transport.has(destination):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "content"
            write_atomic(source, content)
            transport.push(source, destination)
    if not transport.has(destination):
        raise MeasureError("deploy", f"{destination} did not arrive on the device", "check its free space and run again")
    return transport.path(destination)
