"""Crafted exported programs: each is handed to a real command, is refused in one line, and runs nothing.

Those that `runs` marks are attacks: given to torch alone, they make the canary, and the test shows that too.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli

from edgebench import models, sandbox, trust
from edgebench.agent.runtimes import programs, rt_torch
from edgebench.errors import UntrustedFile
from edgebench.models import checkpoint

Members = dict[str, bytes]
MODEL, WEIGHTS, CONSTANTS = rt_torch.MODEL, *rt_torch.CONFIGS.values()
EXAMPLES = rt_torch.EXAMPLES
SYMBOL = "Symbol('s77', positive=True, integer=True)"
COMPILER = shutil.which("cc")
GIVEN = ("--dataset", "digits", "--size", "16", "--channels", "1")


class Evil:
    """An object that makes the canary when it is unpickled, and is a constant for torch then."""

    def __init__(self, canary: Path, rest: str = "__import__('torch').zeros(1)") -> None:
        self.code = f"{make(canary)} or {rest}"

    def __reduce__(self) -> Any:
        return eval, (self.code,)


def make(canary: Path) -> str:
    return f"__import__('os').makedirs({str(canary)!r}, exist_ok=True)"


def spelt(code: str) -> str:
    """Spell code with letters, digits and brackets alone."""
    return f"exec({'+'.join(f'chr({ord(letter)})' for letter in code)})"


def packed(members: Mapping[str, bytes], root: str = "archive") -> bytes:
    """Write members as torch does: stored, back to back."""
    return zipped([(f"{root}/{name}", content) for name, content in members.items()])


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]], **more: Any) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", **more) as archive:
        warnings.simplefilter("ignore")  # about names that are there twice
        for name, content in entries:
            archive.writestr(name if isinstance(name, zipfile.ZipInfo) or more else zipfile.ZipInfo(name), content)
    return made.getvalue()


Change = Callable[[Any, Path], None]
Craft = Callable[[Members, Path], bytes]


def edited(change: Change, name: str = MODEL) -> Craft:
    """Change a member's JSON."""

    def craft(members: Members, canary: Path) -> bytes:
        content = json.loads(members[name])
        change(content, canary)
        return packed({**members, name: json.dumps(content).encode()})

    return craft


def put(*path: Any, value: Any) -> Craft:
    """Put a value in a program's place; a function makes it from the canary."""

    def change(content: Any, canary: Path) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value(canary) if callable(value) else value

    return edited(change)


def added(name: str, content: bytes = b"") -> Craft:
    return lambda members, _: packed({**members, name: content})


def expressions(text: Callable[[Path], str]) -> Craft:
    """Put an expression in place of every size that is open."""
    return lambda members, canary: packed(
        {**members, MODEL: re.sub(rb'"expr_str": "[^"]*"', json.dumps({"expr_str": text(canary)})[1:-1].encode(), members[MODEL])}
    )


# ---------------------------------------------------------------- the six routes that were known


def older(members: Members, canary: Path) -> bytes:
    """Take the layout of torch 2.7: another reader, and pickles."""
    state = io.BytesIO()
    torch.save({"x": Evil(canary)}, state)
    program = json.dumps(json.loads(members[MODEL])).encode()
    names = {"version": b"8.20", "serialized_exported_program.json": program, "serialized_state_dict.pt": state.getvalue()}
    rest = {"serialized_constants.pt": state.getvalue(), "serialized_example_inputs.pt": b""}
    return zipped(list({**names, **rest}.items()))


def twice(members: Members, canary: Path) -> bytes:
    """Write a name twice: torch reads the first, Python the last."""
    evil = re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": "%s"' % spelt(make(canary)).encode(), members[MODEL])
    return zipped([*((f"archive/{name}", content) for name, content in members.items()), (f"archive/{MODEL}", evil)])


def other_case(members: Members, canary: Path) -> bytes:
    """Name a pickle in capitals: torch finds it whatever its case."""
    config = {"config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}}
    pickled = pickle.dumps(Evil(canary))
    return packed({**members, CONSTANTS: json.dumps(config).encode(), "data/constants/OPAQUE_OBJ_0": pickled})


def library(members: Members, canary: Path) -> bytes:
    """Bring a shared library, which the system runs when torch loads it."""
    source, built = canary.with_name("evil.c"), canary.with_name("evil.so")
    made = f'#include <sys/stat.h>\n__attribute__((constructor)) static void made(void) {{ mkdir("{canary}", 0700); }}\n'
    source.write_text(made)
    if COMPILER is not None:
        subprocess.run([COMPILER, "-shared", "-fPIC", "-o", built, source], check=True, timeout=60)
    content = built.read_bytes() if COMPILER is not None else b"\x7fELF"
    folder, about = "data/aotinductor/model", b'{"AOTI_DEVICE_KEY": "cpu"}'
    return packed({**members, f"{folder}/x.wrapper_metadata.json": about, f"{folder}/x.wrapper.so": content})


def constant_text(members: Members, canary: Path) -> bytes:
    """Let the program take a text: torch compares it in source that it writes."""
    examples, content = io.BytesIO(), json.loads(members[MODEL])
    torch.save(((torch.zeros(2, 1, 16, 16), "text"), {}), examples)
    module = content["graph_module"]
    text = f"' or {make(canary)} or '"
    module["graph"]["inputs"].append({"as_string": text})
    spec = {"constant_input": {"name": "text", "value": {"as_string": text}}}
    module["signature"]["input_specs"].append(spec)
    signature = module["module_call_graph"][0]["signature"]
    leaf = '{"type": null, "context": null, "children_spec": []}'
    signature["in_spec"] = signature["in_spec"].replace(leaf, f"{leaf}, {leaf}", 1)
    signature["forward_arg_names"] = ["x", "text"]
    return packed({**members, MODEL: json.dumps(content).encode(), EXAMPLES: examples.getvalue()})


# ---------------------------------------------------------------- others


def node(target: str, *inputs: Any) -> Change:
    """Put a node before the others, whose output nothing takes."""

    def change(content: Any, canary: Path) -> None:
        graph = content["graph_module"]["graph"]
        given = [{"name": "", "arg": each(canary) if callable(each) else each, "kind": 1} for each in inputs]
        graph["tensor_values"]["extra"] = next(iter(graph["tensor_values"].values()))
        outputs = [{"as_tensor": {"name": "extra"}}]
        graph["nodes"].insert(0, {"target": target, "inputs": given, "outputs": outputs, "metadata": {}, "name": None})

    return change


def from_file(content: Any, canary: Path) -> None:
    """Open a file as an operator does; it is made where it is not there."""
    node("torch.ops.aten.from_file.default")(content, canary)
    arguments = {"filename": {"as_string": str(canary)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}
    given = [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]
    content["graph_module"]["graph"]["nodes"][0]["inputs"] = given


def renamed(content: Any, canary: Path) -> None:
    """Name a node's output with lines of source, wherever the name stands."""
    graph = content["graph_module"]
    name = graph["graph"]["nodes"][0]["outputs"][0]["as_tensor"]["name"]
    evil = f"{name} = {make(canary)}; {name}"
    text = json.dumps(graph).replace(f'"{name}"', json.dumps(evil))
    content["graph_module"] = json.loads(text)


def imports(content: Any, canary: Path) -> None:
    """Name an enumeration of a module that torch imports when it reads how inputs are packed."""
    (canary.parent / "evil_module.py").write_text(make(canary))
    signature = content["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps(json.dumps({"__enum__": True, "fqn": "evil_module:X", "name": "X"}))
    signature["in_spec"] = signature["in_spec"].replace('"context": "null"', f'"context": {context}', 1)


def pickled_weight(members: Members, canary: Path) -> bytes:
    config = json.loads(members[WEIGHTS])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    state = io.BytesIO()
    torch.save(Evil(canary), state)
    name = f"data/weights/{first['path_name']}"
    return packed({**members, WEIGHTS: json.dumps(config).encode(), name: state.getvalue()})


def old_weights(members: Members, canary: Path) -> bytes:
    state = io.BytesIO()
    torch.save({"x": Evil(canary)}, state)
    return packed({**members, "data/weights/model.pt": state.getvalue()})


def weight(**change: Any) -> Craft:
    """Change what is said of the first weight."""

    def change_(content: Any, _: Path) -> None:
        first = next(iter(content["config"].values()))
        first["tensor_meta"] |= change

    return edited(change_, WEIGHTS)


def elsewhere(members: Members, _: Path) -> bytes:
    content = json.loads(members[WEIGHTS])
    next(iter(content["config"].values()))["path_name"] = "../../../../etc/passwd"
    return packed({**members, WEIGHTS: json.dumps(content).encode()})


def empty_but_huge(members: Members, canary: Path) -> bytes:
    """Say that a weight of no bytes has many numbers: torch would make room for them."""
    name = f"data/weights/{next(iter(json.loads(members[WEIGHTS])['config'].values()))['path_name']}"
    made = {**members, name: b""}
    return weight(sizes=[{"as_int": 1 << 36}], strides=[{"as_int": 1}])(made, canary)


def weight_named(name: Callable[[Path], str]) -> Craft:
    """Give a weight another name, in the signature and among the weights."""

    def craft(members: Members, canary: Path) -> bytes:
        old, new = next(iter(json.loads(members[WEIGHTS])["config"])), name(canary)
        both = {each: members[each].replace(json.dumps(old).encode(), json.dumps(new).encode()) for each in (MODEL, WEIGHTS)}
        return packed({**members, **both})

    return craft


def info(name: str, **fields: Any) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(f"archive/{name}")
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def entry(name: str, content: bytes = b"pt2", **fields: Any) -> Craft:
    """Write a member with other fields in its header."""
    return lambda members, _: zipped(
        [(f"archive/{each}", members[each]) for each in members if each != name] + [(info(name, **fields), content)]
    )


def patched(old: bytes, new: bytes, count: int = 1) -> Craft:
    """Change bytes of the archive itself, the first alone: those of a member's own header."""
    return lambda members, _: packed(members, "made").replace(old, new, count)


def stated_size(members: Members, _: Path) -> bytes:
    """Say another size in a member's own header than in the directory."""
    content = bytearray(packed(members))
    struct.pack_into("<II", content, 18, 1, 1)
    return bytes(content)


def directory(content: bytes | bytearray) -> int:
    """Find where an archive's directory begins."""
    start: int = struct.unpack_from("<I", content, content.rindex(b"PK\x05\x06") + 16)[0]
    return start


def gap(members: Members, _: Path) -> bytes:
    """Leave a member out of the directory, its bytes where they were."""
    content = packed({"hidden": b"x" * 100, **members})
    start, end = directory(content), content.rindex(b"PK\x05\x06")
    length = 46 + len("archive/hidden")
    rest, count = content[start + length : end], len(members)
    return content[:start] + rest + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(rest), start, 0)


def overlapping(members: Members, _: Path) -> bytes:
    """Let two entries of the directory name the same bytes, as zip bombs do."""
    content = bytearray(packed(members))
    first = directory(content)
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return bytes(content)


def encrypted(members: Members, _: Path) -> bytes:
    content = bytearray(packed(members))
    content[directory(content) + 8] |= 1
    return bytes(content)


def number(members: Members, _: Path) -> bytes:
    return packed({**members, MODEL: members[MODEL].replace(b'"major": 8', b'"major": ' + b"9" * 5000)})


def bomb(members: Members, _: Path) -> bytes:
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = [(f"archive/{name}", content) for name, content in members.items()]
    return zipped([*entries, ("archive/data/weights/weight_900", b"\0" * (64 << 20))], compression=zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Attack:
    craft: Craft
    said: str
    runs: bool = False
    """Whether torch alone runs it: it does here and now."""
    more: tuple[str, ...] = ()
    """What the program takes beside images."""


GRAPH = ("graph_module", "graph")
PLAIN = "no part of a plain program"
OPERATOR = "no operator of plain networks"
ATTACKS = {
    # known before
    "expression": Attack(expressions(lambda canary: spelt(make(canary))), "is no arithmetic", True),
    "older-layout": Attack(older, PLAIN, True),
    "twice": Attack(twice, "is there twice", True),
    "other-case": Attack(other_case, PLAIN, True),
    "library": Attack(library, PLAIN, COMPILER is not None),
    "constant-text": Attack(constant_text, "is not allowed", True, ("text",)),
    # expressions
    "expression-in-symbol": Attack(
        expressions(lambda canary: f"Symbol('s77', integer={spelt(make(canary))})"), "is no arithmetic", True
    ),
    "expression-as-method": Attack(
        expressions(lambda canary: f"Symbol('s77').subs.__func__.__globals__['__builtins__']['eval']({make(canary)!r})"),
        "is no arithmetic",
        True,
    ),
    "expression-of-power": Attack(expressions(lambda _: "9**9**9**9"), "is no arithmetic"),
    "expression-deep": Attack(expressions(lambda _: "(" * 1500 + "1" + ")" * 1500), "is no arithmetic"),
    "expression-long": Attack(expressions(lambda _: "+".join(["1"] * 2000)), "nested too deeply"),
    "expression-signs": Attack(expressions(lambda _: "-" * 3000 + "1"), ""),
    "expression-lambda": Attack(expressions(lambda _: "(lambda: 1)()"), "is no arithmetic"),
    "symbol-unbacked": Attack(put("range_constraints", value={"u99999999999": {"min_val": 0, "max_val": 1}}), "symbol of a size"),
    "range-as-text": Attack(put("range_constraints", value={"s77": {"min_val": "1+1", "max_val": None}}), "no whole number"),
    "range-huge": Attack(put("range_constraints", value={"s77": {"min_val": 0, "max_val": 10**400}}), "no whole number"),
    # operators
    "operator-of-python": Attack(edited(node("torch.os.system", {"as_string": "true"})), OPERATOR),
    "operator-from-file": Attack(edited(from_file), OPERATOR, True),
    "operator-load-library": Attack(edited(node("torch.ops.load_library", {"as_string": "x.so"})), OPERATOR),
    "operator-higher-order": Attack(edited(node("torch.ops.higher_order.cond")), OPERATOR),
    "operator-prims": Attack(edited(node("torch.ops.prims.add.default")), OPERATOR),
    "operator-extension": Attack(edited(node("#x:y")), OPERATOR),
    "operator-getattr": Attack(edited(node("_operator.attrgetter", {"as_string": "__class__"})), OPERATOR),
    "operator-empty": Attack(edited(node("torch.ops.aten.empty.memory_format", {"as_ints": [9]})), OPERATOR),
    "operator-set": Attack(edited(node("torch.ops.aten.set_.source_Storage_storage_offset")), OPERATOR),
    "operator-dotted": Attack(edited(node("torch.ops.aten.add.Tensor.__class__")), OPERATOR),
    "argument-text": Attack(edited(node("torch.ops.aten.relu.default", {"as_string": "x"})), "is not allowed"),
    "argument-graph": Attack(edited(node("torch.ops.aten.relu.default", {"as_graph": {}})), "is not allowed"),
    "argument-operator": Attack(edited(node("torch.ops.aten.relu.default", {"as_operator": "torch.load"})), "is not allowed"),
    "argument-int-as-text": Attack(edited(node("torch.ops.aten.relu.default", {"as_int": "1"})), "no whole number"),
    # names and texts
    "node-name": Attack(edited(renamed), "no plain name"),
    "node-named-torch": Attack(put(*GRAPH, "nodes", 0, "name", value="torch"), "no plain name"),
    "weight-name": Attack(weight_named(lambda canary: f'a", {spelt(make(canary))}), (self, "b'), "no plain name", True),
    "weight-dunder": Attack(weight_named(lambda _: "__class__.forward"), "no plain name"),
    "guards": Attack(put("guards_code", value=lambda canary: [f"{make(canary)} is None"]), "is not allowed", True),
    "packing-imports": Attack(edited(imports), "is not allowed", True),
    "module-metadata": Attack(put("graph_module", "metadata", value={"custom": "{}"}), "is not allowed"),
    "unknown-key": Attack(put("plugins", value=["x"]), "no key that is allowed"),
    "schema-version": Attack(put("schema_version", value={"major": 0, "minor": 0}), "is not allowed"),
    "opset": Attack(put("opset_version", value={"aten": 10, "evil": 1}), "no key that is allowed"),
    "verifier": Attack(put("verifiers", value=["EVIL"]), "is not allowed"),
    "no-verifier": Attack(put("verifiers", value=[]), "is not allowed"),
    # weights
    "pickled-weight": Attack(pickled_weight, "is not allowed", True),
    "weights-of-old": Attack(old_weights, PLAIN, True),
    "weight-elsewhere": Attack(elsewhere, "no name of plain weights"),
    "weight-beyond": Attack(weight(storage_offset={"as_int": 1 << 30}), "reaches to"),
    "weight-stride": Attack(weight(strides=[{"as_int": 1 << 39}] * 4), "reaches to"),
    "weight-negative": Attack(weight(storage_offset={"as_int": -8}), "no whole number"),
    "weight-huge": Attack(empty_but_huge, "in 0 bytes"),
    "weight-open": Attack(weight(sizes=[{"as_expr": {"expr_str": SYMBOL}}] * 4), "an open or a negative size"),
    "weight-dtype": Attack(weight(dtype=99), "is not allowed"),
    "weight-device": Attack(weight(device={"type": "cuda", "index": 0}), "is not allowed"),
    "weight-unused": Attack(added("data/weights/weight_901", b"x"), "belongs to no weight"),
    # JSON
    "json-deep": Attack(lambda members, _: packed({**members, MODEL: b"[" * 200000}), "nested too deeply"),
    "json-key-twice": Attack(
        lambda members, _: packed({**members, MODEL: members[MODEL][:-1] + b', "guards_code": []}'}), "names a key twice"
    ),
    "json-number": Attack(number, MODEL),
    "json-nan": Attack(put("range_constraints", value={"s77": {"min_val": float("nan"), "max_val": None}}), "is not allowed"),
    "json-bytes": Attack(lambda members, _: packed({**members, MODEL: b"\xff\xfe"}), "is no JSON"),
    # the archive
    "no-zip": Attack(lambda *_: b"not a zip", "is no whole zip file"),
    "truncated": Attack(lambda members, _: packed(members)[:-9], "is no whole zip file"),
    "nul": Attack(patched(b"made/byteorder", b"made/byte\0rder", 2), "no plain name"),
    "dots": Attack(added("data/weights/../weights/weight_0"), "no plain name"),
    "absolute": Attack(lambda members, _: packed(members, "/archive"), "no plain name"),
    "backslash": Attack(added("data\\weights\\weight_0"), "no plain name"),
    "other-root": Attack(
        lambda members, _: zipped([*((f"archive/{name}", members[name]) for name in members), (f"other/{MODEL}", b"{}")]), PLAIN
    ),
    "nested-root": Attack(lambda members, _: packed(members, "archive/archive"), PLAIN),
    "extra": Attack(added("extra/note", b"x"), PLAIN),
    "script": Attack(added("code/__torch__.py", b"x"), PLAIN),
    "prefix": Attack(lambda members, _: b"#!/bin/sh\n" + packed(members), "does not begin where"),
    "comment": Attack(lambda members, _: packed(members)[:-2] + b"\x03\0abc", "bytes before, between or after"),
    "gap": Attack(gap, "does not begin where"),
    "overlap": Attack(overlapping, "does not begin where"),
    "own-header-name": Attack(patched(b"made/byteorder", b"made/BYTEORDER"), "another name or kind"),
    "own-header-size": Attack(stated_size, "another size"),
    "link": Attack(entry("byteorder", b"/etc/passwd", create_system=3, external_attr=0o120777 << 16), "a link"),
    "compressed": Attack(bomb, "is compressed"),
    "encrypted": Attack(encrypted, "is encrypted"),
    "format": Attack(entry("archive_format", b"pt3"), "says 'pt3'"),
    "version": Attack(entry("archive_version", b"1"), "says '1'"),
    "big-endian": Attack(entry("byteorder", b"big"), "says 'big'"),
    "many": Attack(lambda members, _: packed({**members, **{f"data/weights/weight_{n}": b"" for n in range(20001)}}), "holds 20"),
}


@pytest.fixture(scope="module")
def members() -> Members:
    """Make a program with an open batch, as anybody would, and return its members."""
    models_path = str(Path(__file__).parent.parent)
    assert models_path in sys.path
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 10)]
    module, batch = torch.nn.Sequential(*layers).eval(), torch.export.Dim("batch")
    program = torch.export.export(module, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=({0: batch},))
    made = io.BytesIO()
    torch.export.save(program, made)
    with zipfile.ZipFile(made) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_crafted_program_is_refused_in_one_line_and_runs_nothing(
    name: str, members: Members, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, canary = ATTACKS[name], here / "canary"
    Path("evil.pt2").write_bytes(attack.craft(dict(members), canary))
    code, _, errors = cli("export", "evil.pt2", "--format", "onnx", *GIVEN)
    [line] = errors.splitlines()
    assert code == 2
    assert line.startswith("edgebench: evil.pt2: exported programs can run code") and line.isprintable()
    assert attack.said in line, line
    assert not canary.exists()
    if attack.runs:
        monkeypatch.syspath_prepend(here)
        monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.load("evil.pt2").module()(torch.zeros(2, 1, 16, 16), *attack.more)
        assert canary.exists(), "then the attack is none, and the test shows nothing"


# ---------------------------------------------------------------- what passes


def test_what_no_program_needs_is_left_out(members: Members, here: Path) -> None:
    state = io.BytesIO()
    torch.save(Evil(here / "canary"), state)
    content = json.loads(members[MODEL])
    for each in content["graph_module"]["graph"]["nodes"]:
        each["metadata"] = {
            key: make(here / "canary") for key in ("stack_trace", "torch_fn", "source_fn_stack", "from_node", "custom")
        }
        each["metadata"]["nn_module_stack"] = f"k,{make(here / 'canary')},t"
    evil = packed({**members, MODEL: json.dumps(content).encode(), EXAMPLES: state.getvalue()})
    clean = rt_torch.cleaned(evil)
    assert b"canary" in evil and b"canary" not in clean
    assert rt_torch.cleaned(clean) == clean == rt_torch.cleaned(evil)
    names = torch._C.PyTorchFileReader(io.BytesIO(clean)).get_all_records()
    assert set(names) == (set(members) - {".data/serialization_id"})
    rt_torch.open_program(torch, "", clean).module()(torch.zeros(3, 1, 16, 16))
    assert not (here / "canary").exists()


def test_a_plain_program_of_others_is_exported_after_a_trial(
    members: Members, here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = torch.export.export(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)), (torch.zeros(1, 1, 16, 16),))
    torch.export.save(fixed, here / "theirs.pt2")
    monkeypatch.setattr(trust, "_tried", {})
    code, _, errors = cli("export", "theirs.pt2", "--format", "onnx", *GIVEN)
    assert code == 0, errors
    assert list(trust._tried.values()) == [None]
    assert list(here.glob("bundles/*/model.onnx"))


HUNGRY = "torch.ops.aten.full.default"


def hungry(content: Any, canary: Path) -> None:
    """Ask for more memory than there is, with operators and numbers that are plain."""
    arguments = {"size": {"as_ints": [1 << 36]}, "fill_value": {"as_float": 1.0}}
    node(HUNGRY)(content, canary)
    given = [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]
    content["graph_module"]["graph"]["nodes"][0]["inputs"] = given


def test_a_program_that_takes_all_memory_ends_in_the_trial(members: Members, here: Path, cli: Cli) -> None:
    Path("evil.pt2").write_bytes(edited(hungry)(dict(members), here / "canary"))
    code, _, errors = cli("export", "evil.pt2", "--format", "onnx", *GIVEN)
    assert code == 2
    assert "does not load and run in a process without rights (RuntimeError: " in errors, errors


REACHES = """
import os, socket, sys

def reached(what):
    try:
        return what() is not None
    except OSError:
        return False

ways = {
    "network": lambda: socket.create_connection(("127.0.0.1", PORT), 2).close() or 1,
    "home": lambda: os.stat(FOLDER),
    "file": lambda: open(FOLDER + "/file", "w").close() or 1,
    "system": lambda: open("/etc/passwd").close() or 1,
    "processes": lambda: os.listdir("/proc"),
    "environment": lambda: os.environ.get("SECRET"),
}
sys.exit("reached: " + " ".join(name for name, what in ways.items() if reached(what)))
"""


def test_the_trial_reaches_no_network_no_home_and_no_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    script = Path(sandbox.SOURCE).read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = REACHES.replace("PORT", str(server.getsockname()[1])).replace("FOLDER", repr(str(here)))
        open_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        (here / "file").unlink()
        inside = textwrap.indent(code, "    ")
        assert script.count("def main(") == 1
        (here / "probe.py").write_text(script.replace("def main(", f"def run(content, spare, pages):\n{inside}\n\ndef main("))
        said = sandbox.trial(b"", here / "probe.py")
    assert open_.stderr.split() == ["reached:", "network", "home", "file", "system", "processes", "environment"]
    assert said == "it does not load and run in a process without rights (reached:)"
    assert not (here / "file").exists()


def test_where_no_trial_is_possible_the_user_is_asked(here: Path, monkeypatch: pytest.MonkeyPatch, members: Members) -> None:
    Path("theirs.pt2").write_bytes(packed(members))
    broken = Path("broken.py")
    broken.write_text(Path(sandbox.SOURCE).read_text(encoding="utf-8").replace("NEWUSER | NEWNS", "-1"))
    monkeypatch.setattr(sandbox, "SOURCE", broken)
    monkeypatch.setattr(trust, "_tried", {})
    wanted = r"no process without rights can be made here to try it in \(OSError: .*unshare: .*\)\); give --trust"
    with pytest.raises(UntrustedFile, match=wanted):
        checkpoint.read(Path("theirs.pt2"))
    assert checkpoint.read(Path("theirs.pt2"), trust=True)


NETWORKS = (("cnn", False), ("cnn", True), ("mobilenet_v3_small", False), ("vit", True))


class Attention(torch.nn.Module):
    """A small transformer of images."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 32, 8, 8)
        self.place = torch.nn.Parameter(torch.randn(1, 64, 32))
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(32, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.encoder(self.patch(images).flatten(2).transpose(1, 2) + self.place)[:, 0]))


@pytest.mark.parametrize(("name", "dynamic"), NETWORKS)
def test_ordinary_networks_compute_the_same(name: str, dynamic: bool, here: Path) -> None:
    network = (Attention() if name == "vit" else models.build(name, 10, 3, 64)).eval()
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(network, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, here / "theirs.pt2")
    clean = rt_torch.cleaned((here / "theirs.pt2").read_bytes())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rt_torch.open_program(torch, "", clean).module()(images), program.module()(images))


def test_the_grammar_names_operators_that_torch_has() -> None:
    assert {name for name in programs.OPERATORS if not hasattr(torch.ops.aten, name)} == set()
    known = [importlib.import_module(name) for name in ("torch.utils._sympy.functions", "sympy")]
    assert [name for name in programs.CALLS if not any(hasattr(module, name) for module in known)] == []
