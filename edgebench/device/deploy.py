"""Bring agent, bundle and samples to a device: by content, each once, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench import agent, plugins
from edgebench.agent import plugins as agent_plugins
from edgebench.data._mapped import LARGE, as_file, digest
from edgebench.files import inside
from edgebench.schema import Attached, Bundle, Link, Progress, Target, Transport, TransportModule

MAIN = "import sys\nfrom edgebench_agent.commands import main\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
STAY_HERE = frozenset({"parity.npz", "tokenizer.json"})
"""Files of a bundle that no device needs."""

Sent = Callable[[int, int], None]
Samples = Sequence[NDArray[Any]]
"""For each input its samples [n, …]: images as uint8 [n, h, w, c], other tensors in the input's own dtype."""


@dataclass(frozen=True)
class Deployed:
    """Where things lie on the device, as the device names them."""

    agent: str
    model: str
    data: tuple[str, ...]
    """The samples of each input."""
    files: tuple[tuple[str, str], ...]
    """(path, sha256) of what the agent checks before it starts."""


def transport_module(target: Target) -> ModuleType:
    """Load the plugin of the target's transport: a `schema.TransportModule`."""
    return plugins.load("edgebench.targets.transports", target.transport, "transport")


def shown_host(target: Target) -> str | None:
    """Return a device's address as it may be printed; None where there is none, or it tells the device from all others."""
    hidden = plugins.declared(transport_module(target), "NAMES_A_DEVICE", TransportModule.NAMES_A_DEVICE)
    return None if hidden else target.host


def attached(target: Target) -> Sequence[Attached] | None:
    """List the devices that the target's transport sees by itself; None where it cannot see any."""
    look = plugins.declared(transport_module(target), "attached", TransportModule.attached)
    return None if look is None else look()


def connect(target: Target, link: Link) -> Transport:
    """Open the target's transport."""
    transport: Transport = transport_module(target).connect(target, link)
    return transport


def no_upload_progress(done: int, total: int) -> None:
    """Tell nobody what is sent."""


def upload_progress(progress: Progress, target: Target) -> Sent:
    """Show what is sent to a device, with its rate."""
    begin = time.monotonic()

    def sent(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - begin, 1e-3) / 2**20
        progress(f"push {total / 2**20:.1f} MiB to {target.name} ({rate:.1f} MiB/s)", done, total, target.name)

    return sent


def pack_agent(own: Sequence[str] = ()) -> bytes:
    """Pack the agent, and a target's own runtimes and meters, into one zip that Python runs.

    The same sources give the same bytes.
    """
    folder = Path(agent.__file__).parent
    sources = {f"edgebench_agent/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*.py")}
    for plugin in map(Path, own):
        kind = "meters" if plugin.name.startswith(agent_plugins.PREFIXES["meters"]) else "runtimes"
        sources[f"edgebench_agent/{kind}/{plugin.name}"] = plugin.read_bytes()
    sources["__main__.py"] = MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, sources[name])
    return buffer.getvalue()


@contextmanager
def connected(target: Target, link: Link) -> Iterator[tuple[Transport, str]]:
    """Connect to a device and bring it the agent; gives both."""
    with closing(connect(target, link)) as transport:
        yield transport, deploy_agent(target, transport)


def deploy_agent(target: Target, transport: Transport, sent: Sent = no_upload_progress) -> str:
    """Push the agent unless the device has it; returns its path there."""
    content = pack_agent(target.agent_plugins)
    return transport.push(content, f"agents/{hashlib.sha256(content).hexdigest()[:16]}.pyz", sent)


def place(bundle: Bundle) -> str:
    """Name the folder of a bundle's files in a device's cache."""
    return f"bundles/{bundle.sha256[:16]}"


def deploy(
    target: Target, transport: Transport, folder: Path, bundle: Bundle, samples: Samples, sent: Sent = no_upload_progress
) -> Deployed:
    """Push whatever of agent, bundle and samples the device does not have yet.

    Raises `TransportError` where it does not arrive, `StorageError` where a
    local cache folder cannot hold it.
    """
    agent = deploy_agent(target, transport, sent)
    there = {
        name: transport.push(inside(folder, name), f"{place(bundle)}/{name}", sent)
        for name in bundle.files
        if name not in STAY_HERE
    }
    data = [_push_samples(transport, each, sent) for each in samples]
    files = [(there[name], bundle.files[name].sha256) for name in there]
    return Deployed(agent, there[bundle.entry], tuple(path for path, _ in data), tuple(dict.fromkeys([*files, *data])))


def set_place(samples: NDArray[Any]) -> tuple[str, str]:
    """Name the file of an input's samples in a device's cache; returns it with their hash."""
    kind = "u8" if samples.dtype == np.uint8 else str(samples.dtype)
    samples = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
    found = digest(samples) if samples.nbytes > LARGE else hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()
    return f"sets/{found[:16]}.{kind}", found


def _push_samples(transport: Transport, samples: NDArray[Any], sent: Sent) -> tuple[str, str]:
    """Push the samples of one input; returns their path on the device, and their hash."""
    place, found = set_place(samples)
    samples = samples.astype(samples.dtype.newbyteorder("<"), copy=False)
    if samples.nbytes > LARGE:
        with as_file(samples) as path:
            return transport.push(path, place, sent), found
    return transport.push(np.ascontiguousarray(samples).tobytes(), place, sent), found
