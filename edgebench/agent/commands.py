"""What the agent is started for.

Each command imports what it needs itself: Python compiles what lies in a zip at every start, and each pass is a process.
"""

import json
import sys
from typing import Any, Dict, List, Optional


def main() -> int:
    """Do what the first argument says: `cell`, `inspect`, `probe`, `setup`, `tune` or `worker`."""
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if command == "worker":
        from .cell import worker

        return worker.main()
    if command == "watch-screen":
        from .tune import screen

        return screen.watch(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    if command == "setup":
        return _setup(sys.argv[2:])
    if command in ("inspect", "probe"):
        given = json.loads(sys.stdin.readline()) if command == "inspect" or len(sys.argv) > 2 else {}
        return _hello(given, {}) if command == "inspect" else _hello(None, given)
    if command == "tune":
        from .events import Events
        from .tune import tuning

        return tuning.tune(json.loads(sys.stdin.readline()), Events())
    if command != "cell":
        sys.stderr.write("usage: python agent.pyz cell|inspect|probe|setup|tune < job.json\n")
        return 2
    from . import supervisor
    from .events import Events

    return supervisor.cell(json.loads(sys.stdin.readline()), Events())


def _setup(arguments: List[str]) -> int:
    """Work on environments, or import the one runtime that is named."""
    if arguments[:1] == ["--import"]:
        from .setup import trial_import

        return trial_import.main(arguments[1])
    from . import plugins
    from .setup import environments

    _put_back("/")
    return environments.main(plugins.names("runtimes"))


def _hello(job: Optional[Dict[str, Any]], options: Dict[str, Any]) -> int:
    """Say what this device is; where a job is given, also all that it has. `options`: of runtimes that they decide."""
    import time

    from . import PROTOCOL, clock, facts, plugins
    from .events import Events
    from .probe import inventory

    events = Events()
    root = "/" if job is None else job.get("root", "/")
    _put_back(root)
    more = {} if job is None else {"device": inventory.inspect(job, root)}
    events.emit(
        "hello",
        protocol=PROTOCOL,
        environment=facts.environment(root),
        identity=inventory.identity(root),
        runtimes=facts.runtimes(plugins.names("runtimes"), options),
        clock=clock.describe(),
        wall_s=time.time(),
        **more,
    )
    return 0


def _put_back(root: str) -> None:
    """Put a phone's screen back where a run that was killed kept it on."""
    from . import android

    if android.here(root):
        from .tune import screen

        screen.put_back(root, screen.state_file(sys.argv[0]))
