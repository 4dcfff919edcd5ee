"""What torch's files say of themselves: exported programs (`.pt2`) and TorchScript, read as archives, without torch.

An exported program has its inputs' shapes and types in its JSON. TorchScript
has names alone, in the source that it keeps; which class that is, its pickle
says, which is looked through and never loaded.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebench.files import archive_names
from edgebench.schema.file import FileDescription, FileTensor, Unreadable

MODEL, SOURCE, PICKLE = re.compile(r"[^/]*/models/[^/]*\.json"), re.compile(r"[^/]*/code/.*\.py"), re.compile(r"[^/]*/data\.pkl")
OLD, COMPILED = "serialized_exported_program.json", re.compile(r"(^|/)data/aotinductor/")
CONFIG = re.compile(r"[^/]*/data/weights/model_weights_config\.json")
EXTRA = re.compile(r"[^/]*/extra/config\.txt")
LARGEST = 64 << 20
TYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool"}
TYPES[13] = "bfloat16"
"""torch's ScalarType as exported programs number it."""
SHORT = {"float32": "fp32", "float16": "fp16", "float64": "fp64", "bfloat16": "bf16", "int8": "int8-weights"}


def is_program(names: list[str]) -> bool:
    """Return whether these are the members of an exported program."""
    return OLD in names or any(MODEL.fullmatch(each) or COMPILED.search(each) for each in names)


def is_script(names: list[str]) -> bool:
    """Return whether these are the members of a TorchScript file."""
    return any(SOURCE.fullmatch(each) for each in names) and any(PICKLE.fullmatch(each) for each in names)


def recognizes(path: Path) -> bool:
    """Return whether a file is an exported program or TorchScript, by what its archive holds."""
    names = archive_names(path)
    return is_program(names) or is_script(names)


def read(path: Path) -> FileDescription:
    """Describe a file; `Unreadable` where it is broken, or of a kind that is not run."""
    names = archive_names(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _script(archive, names) if is_script(names) else _program(archive, names)
    except Unreadable:
        raise
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, struct.error, zlib.error) as error:
        raise Unreadable(f"is broken ({_shown(error)})") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, StopIteration) as error:
        raise Unreadable(f"is no exported program as torch 2.8 and later writes it ({_shown(error)})") from error


def _shown(error: Exception) -> str:
    return ascii(str(error) or type(error).__name__)[1:-1][:100]


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST:
        raise Unreadable(f"is no plain program: {name[:100]} has {info.file_size} bytes")
    return archive.read(info)


def _program(archive: zipfile.ZipFile, names: list[str]) -> FileDescription:
    if any(COMPILED.search(each) for each in names):
        raise Unreadable("holds compiled code (AOTInductor), which is tied to one computer; save it with torch.export.save")
    if OLD in names:
        raise Unreadable("was saved by a torch before 2.8; export it again with a newer one")
    [place] = [each for each in names if MODEL.fullmatch(each)][:1]
    program = json.loads(_content(archive, place))
    module = program["graph_module"]
    values, signature = module["graph"]["tensor_values"], module["signature"]
    inputs = [_given(each["user_input"]["arg"], values, "input") for each in signature["input_specs"] if "user_input" in each]
    outputs = [
        _given(each["user_output"]["arg"], values, "output") for each in signature["output_specs"] if "user_output" in each
    ]
    counts = _weights(archive, names)
    most = max(counts, key=lambda dtype: counts[dtype], default="float32")
    floats = {SHORT.get(dtype, dtype): 1 for dtype in counts if dtype.startswith(("float", "bfloat"))}
    return FileDescription(
        format="torch",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        precision="mixed" if len(floats) > 1 else next(iter(floats), SHORT.get(most, "fp32")),
        parameters=sum(counts.values()),
        metadata=_metadata(archive, names),
        details={"kind": "exported program", "nodes": len(module["graph"]["nodes"])},
        suffix=".pt2",
    )


def _given(argument: Mapping[str, Any], values: Mapping[str, Any], role: str) -> FileTensor:
    if "as_tensor" not in argument:
        raise Unreadable(f"has an {role} that is no tensor ({', '.join(map(str, argument))[:60]}); export it with tensors alone")
    name = str(argument["as_tensor"]["name"])
    meta = values[name]
    shape = tuple(int(size["as_int"]) if "as_int" in size else None for size in meta["sizes"])
    symbols = tuple("" if "as_int" in size else str(size["as_expr"]["expr_str"])[:60] for size in meta["sizes"])
    dtype = TYPES.get(int(meta["dtype"]))
    if dtype is None:
        raise Unreadable(f"{role} {name!r} has a type that is not fed (number {meta['dtype']})")
    return FileTensor(name, dtype, shape, symbols)


def _weights(archive: zipfile.ZipFile, names: list[str]) -> dict[str, int]:
    """Count the parameters of a program by their type."""
    counts: dict[str, int] = {}
    for place in [each for each in names if CONFIG.fullmatch(each)][:1]:
        for payload in json.loads(_content(archive, place))["config"].values():
            if payload.get("is_param", True):
                meta, count = payload["tensor_meta"], 1
                for size in meta["sizes"]:
                    count *= int(size["as_int"])
                dtype = TYPES.get(int(meta["dtype"]), "other")
                counts[dtype] = counts.get(dtype, 0) + count
    return counts


def _metadata(archive: zipfile.ZipFile, names: list[str]) -> dict[str, str]:
    """Read what ultralytics' export keeps beside the program: its text, under `metadata`."""
    found = [each for each in names if EXTRA.fullmatch(each)]
    return {"metadata": _content(archive, found[0]).decode("utf-8", "replace")} if found else {}


def _script(archive: zipfile.ZipFile, names: list[str]) -> FileDescription:
    place = next(each for each in names if PICKLE.fullmatch(each))
    top = _class_of(_content(archive, place))
    arguments = _arguments(archive, names, top)
    return FileDescription(
        format="torch",
        inputs=tuple(FileTensor(name, None, None) for name in arguments),
        outputs=(),
        precision=_storage_type(_content(archive, place)),
        parameters=_numbers(_content(archive, place)),
        metadata=_metadata(archive, names),
        details={"kind": "TorchScript"},
        suffix=".torchscript",
    )


def _class_of(pickled: bytes) -> str:
    """Return the class of the outermost object, by going through the pickle's instructions; none of them is carried out."""
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL" and isinstance(argument, str) and argument.startswith("__torch__"):
                return argument.replace(" ", ".")
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise Unreadable(f"is broken: its objects cannot be read ({str(error)[:80]})") from error
    raise Unreadable("is no module of TorchScript: it holds no class of its own")


def _numbers(pickled: bytes) -> int:
    """Count the numbers of all storages that the pickle names; those of one, which count batches, are left out."""
    sizes: dict[str, int] = {}
    key, last = "", 0
    for opcode, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str) and argument.isdigit():
            key = argument
        elif isinstance(argument, int) and opcode.name.startswith(("BININT", "LONG")):
            last = argument
        elif opcode.name == "BINPERSID":
            sizes[key] = last
    return sum(size for size in sizes.values() if size > 1)


def _storage_type(pickled: bytes) -> str:
    """Name the precision of most weights, by the storages that the pickle names."""
    kinds = {"FloatStorage": "fp32", "HalfStorage": "fp16", "BFloat16Storage": "bf16", "DoubleStorage": "fp64"}
    kinds |= {"CharStorage": "int8-weights", "QInt8Storage": "int8-weights", "QUInt8Storage": "int8-weights"}
    found = set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and isinstance(argument, str):
            kind = kinds.get(argument.rpartition(" ")[2])
            found |= {kind} if kind else set()
    return next(iter(found)) if len(found) == 1 else "mixed" if found else "fp32"


def _arguments(archive: zipfile.ZipFile, names: list[str], top: str) -> list[str]:
    """Read the names of `forward`'s arguments out of the source that the file keeps; tensors alone."""
    module, _, name = top.rpartition(".")
    wanted = f"/code/{module.replace('.', '/')}.py"
    place = next((each for each in names if each.endswith(wanted)), None)
    text = _content(archive, place).decode("utf-8", "replace") if place else ""
    found = re.search(rf"^class {re.escape(name)}\(Module\):\n(.*?)(?=^class |\Z)", text, re.MULTILINE | re.DOTALL)
    header = re.search(r"def forward\(self[^,)]*,?(.*?)\) ->", found[1] if found else "", re.DOTALL)
    if header is None:
        raise Unreadable("has no method `forward`; save what computes, with torch.jit.script or torch.jit.trace")
    arguments = [part.strip() for part in header[1].replace("\n", " ").split(",") if part.strip()]
    for each in arguments:
        argument, _, kind = each.partition(":")
        if not kind.strip().startswith("Tensor"):
            raise Unreadable(f"takes {argument.strip()!r} as {kind.strip() or 'something'}, and tensors alone are made; trace it")
    return [each.partition(":")[0].strip() for each in arguments]
