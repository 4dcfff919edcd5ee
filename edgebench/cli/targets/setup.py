"""`edgebench targets setup`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgebench.cli import console
from edgebench.cli.options import AcceptNewHostKey, Host

if TYPE_CHECKING:
    from edgebench.device.setup import Outcome, Plan
    from edgebench.run.options import RunOptions
    from edgebench.schema import Target


def command(
    target: Annotated[str, typer.Option(help="Target name or YAML file.")],
    host: Host = None,
    requirement: Annotated[
        list[str] | None, typer.Option(help="What to bring beside or instead of the target's own, as pip reads it; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove from the device what setup brought there.")] = False,
    userland: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the packages that a phone's Python is made of; fetched from a mirror of Debian unless given."
        ),
    ] = None,
    work: Annotated[Path, typer.Option(help="Where wheels, models and bundles are kept.")] = Path(".edgebench"),
    accept_new_host_key: AcceptNewHostKey = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring a target's runtimes to a device, also to one without internet."""
    from edgebench import api
    from edgebench.config import read_target
    from edgebench.run.options import RunOptions

    device, options = read_target(target, host), RunOptions(work=work, accept_new_host_key=accept_new_host_key)
    if remove:
        _remove(device, options, dry_run, json)
        return
    house = work / "wheelhouse"
    with ExitStack() as screen:
        bars = [screen.enter_context(console.progress())]

        def planned(plan: Plan) -> None:
            """Print the plan without a bar above or below it."""
            screen.close()
            if not json:
                _print_plan(plan, house)
            bars.append(screen.enter_context(console.progress()))

        plan, outcome = api.setup(
            device,
            requirements=requirement or [],
            dry_run=dry_run,
            planned=planned,
            userland=userland,
            options=options,
            progress=lambda *step: bars[-1](*step),
        )
    if json:
        console.print_json({**_described(plan), "outcome": None if outcome is None else vars(outcome)})
    elif outcome is not None:
        _print_outcome(plan, outcome)


def _remove(device: Target, options: RunOptions, dry_run: bool, json: bool) -> None:
    from edgebench import api

    if dry_run:
        console.say(f"would remove the environments and wheels from {device.name}, and a Python that was brought there")
        return
    freed = api.remove_setup(device, options=options)
    if json:
        console.print_json({"target": device.name, "removed": True, "freed_bytes": freed})
    else:
        console.say(f"{device.name}: removed; {_mebibytes(freed)} MiB are free again")


def _print_plan(plan: Plan, house: Path) -> None:
    """Print what will be done, before it is."""
    lacks = {wheel.path for wheel in plan.missing}
    rows = [
        {
            "wheel": wheel.path.name,
            "MiB": _mebibytes(wheel.bytes),
            **({"licence": wheel.licence} if plan.brought else {}),
            "": "to be pushed" if wheel.path in lacks else "installed" if plan.done else "on the device",
        }
        for wheel in plan.house.wheels
    ]
    console.print_table(f"Set up {plan.target.name}: {', '.join(plan.requirements)}", rows, right=("MiB",))
    if plan.brought:
        packages = [
            {
                "package": each.name,
                "version": each.version,
                "MiB": _mebibytes(each.bytes),
                "licence": each.licence,
                "": each.source,
            }
            for each in plan.brought
        ]
        console.print_table("The device's Python, brought before: it has none of its own", packages, right=("MiB",))
    console.say(f"device       {plan.python}; {plan.device['executable']}")
    console.say(f"environment  {plan.device['root']}/env/{plan.name}: {_state(plan)}")
    kept = f"kept from an earlier time; remove {house} to look for newer ones"
    console.say(f"wheels       {kept if plan.house.kept else f'fetched now, kept in {house}'}")
    space = f"{_mebibytes(plan.needed_bytes)} MiB needed, {_mebibytes(plan.device['free_bytes'])} MiB free"
    console.say(f"push         {_mebibytes(plan.push_bytes)} MiB in {len(plan.missing)} files; {space}", flush=True)


def _state(plan: Plan) -> str:
    if plan.done:
        return "is there already"
    return "replaces the one in force" if plan.device["environment"] else "new"


def _print_outcome(plan: Plan, outcome: Outcome) -> None:
    wanted = {each.runtime for each in plan.target.accepts}
    rows = [
        {"runtime": name, "version": found["version"], "": found["reason"] or ""}
        for name, found in sorted(outcome.runtimes.items())
        if name in wanted or not found["reason"]
    ]
    console.print_table("Runtimes of the environment", rows)
    what = "is set up" if outcome.made else "was set up already, and works"
    pushed, freed = _mebibytes(outcome.pushed_bytes), _mebibytes(outcome.freed_bytes)
    console.say(f"{plan.target.name} {what}; {pushed} MiB pushed, {freed} MiB freed of what is not needed any more")


def _described(plan: Plan) -> dict[str, Any]:
    wheels = [{"file": wheel.path.name, "bytes": wheel.bytes, "sha256": wheel.sha256} for wheel in plan.house.wheels]
    return {
        "target": plan.target.name,
        "python": plan.python.version,
        "abi": plan.python.abi,
        "machine": plan.python.machine,
        "glibc": plan.python.glibc,
        "requirements": list(plan.requirements),
        "environment": f"{plan.device['root']}/env/{plan.name}",
        "done": plan.done,
        "wheels": wheels,
        "brought": [vars(each) for each in plan.brought],
        "push_bytes": plan.push_bytes,
        "needed_bytes": plan.needed_bytes,
        "free_bytes": plan.device["free_bytes"],
    }


def _mebibytes(count: float) -> str:
    return f"{count / (1 << 20):.1f}"
