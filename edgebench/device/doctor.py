"""What works on this computer, and how to make the rest work."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from edgebench import plugins
from edgebench.agent import facts
from edgebench.config import read_target
from edgebench.device import deploy, measure
from edgebench.errors import EdgebenchError
from edgebench.files import sha256_file
from edgebench.schema import Link, Target
from edgebench.trust import allowed

Rows = list[dict[str, Any]]


def check_formats() -> Rows:
    """Check which exporters have what they need; none of it is imported."""
    rows = []
    for name in plugins.names("edgebench.exporters"):
        plugin = plugins.load("edgebench.exporters", name, "format")
        missing = [(module, extra) for module, extra in plugin.REQUIRES if importlib.util.find_spec(module) is None]
        reason = f"{missing[0][0]} is not installed; pip install 'edgebench[{missing[0][1]}]'" if missing else _tool(plugin)
        rows.append(_row("format", name, not reason, reason, precisions="/".join(plugin.PRECISIONS)))
    return rows


def _tool(plugin: Any) -> str:
    """Say which program a format lacks; empty: none, or it wants none."""
    return plugins.declared(plugin, "missing", lambda: "")()


def check_runtimes() -> Rows:
    """Check which of the agent's runtimes can run here."""
    rows = []
    for name, found in facts.runtimes(plugins.on_device("runtimes")).items():
        plugin = plugins.load_device("runtimes", name)
        how = plugins.declared(plugin, "INSTALL", f"python -m pip install {plugins.declared(plugin, 'PACKAGE', name)}")
        remedy = f"{found['reason']}; {how}"
        works = found["version"] is not None
        rows.append(_row("runtime", name, works, "" if works else remedy, version=found["version"] or ""))
    return rows


def check_meters() -> Rows:
    """Check which of the agent's power meters can be read here."""
    return [_check_meter(name) for name in plugins.on_device("meters")]


def _check_meter(name: str) -> dict[str, Any]:
    plugin = plugins.load_device("meters", name)
    if hasattr(plugin, "NEEDS"):
        return _row("meter", name, True, f"needs --meter {plugin.NEEDS}")
    meter = plugin.Meter({})
    try:
        rails = ", ".join(channel["rail"] for channel in meter.start())
    except Exception as error:  # a meter says why it cannot be read in whatever way it breaks
        return _row("meter", name, False, str(error))
    finally:
        meter.stop()
    return _row("meter", name, True, f"rails: {rails}")


def check_trusted() -> Rows:
    """List the files that may run the code that they name, and whether they are still as they were then."""
    rows = []
    for digest, path in allowed().items():
        same = Path(path).is_file() and sha256_file(Path(path)) == digest
        rows.append(
            {"file": path, "as it was": "yes" if same else "no", "note": "" if same else f"edgebench trust --forget {path}"}
        )
    return rows


def check_targets() -> Rows:
    """Probe every target that needs no address."""
    return [_check_target(read_target(name)) for name in plugins.names("edgebench.targets", ".yaml")]


def _check_target(target: Target) -> dict[str, Any]:
    if target.transport != "local":
        return _row("target", target.name, False, "not probed: it needs an address")
    try:
        with tempfile.TemporaryDirectory(prefix="edgebench-") as root:
            transport = deploy.connect(target, Link(Path(root)))
            found = measure.probe(transport, deploy.deploy_agent(target, transport))
    except EdgebenchError as error:
        return _row("target", target.name, False, str(error))
    environment = found["environment"]
    what = f"{environment['cpu'] or environment['machine']}, {environment['cores']} cores, {environment['os']}"
    return _row("target", target.name, True, what)


def _row(kind: str, name: str, works: bool, reason: str, **more: str) -> dict[str, Any]:
    return {kind: name, **more, "works": "yes" if works else "no", "note": reason}
