"""Exported programs (`.pt2`) on torch: the FP32 reference."""

import io
import json
import os
import re
import struct
import zipfile
from typing import Any, Dict, List, Optional, Sequence

from . import programs, tensors

PACKAGE = "'edgebench[torch]'"
MODULES = ("torch",)
DISTRIBUTIONS = ("torch",)
WARM, RUNS = 3, 10
"""Profiled inferences: those that are dropped, and those that are kept."""

MODEL, EXAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
CONFIGS = {WEIGHTS: WEIGHTS + "model_weights_config.json", CONSTANTS: CONSTANTS + "model_constants_config.json"}
TEXTS = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
NEEDED = frozenset([MODEL, EXAMPLES, "archive_format", "archive_version", ".data/version"]) | frozenset(CONFIGS.values())
OTHERS = frozenset([".data/serialization_id", "byteorder"])
TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_(0|[1-9][0-9]{0,5})", re.ASCII)
MOST_MEMBERS, MOST_JSON = 20000, 64 << 20
EXPRESSION = re.compile(r"[A-Za-z0-9_ +\-*/(),<>=]*")
SYMBOL = re.compile(r"Symbol\('(s\d+)'(?:, (?:integer|positive|nonnegative)=True)*\)")
"""How torch writes a size that is open, as a dynamic batch is."""


class Runtime(object):
    """One exported program in eager execution on the CPU."""

    OFFERS = ("profile",)

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy
        import torch

        self._np = numpy
        self._torch = torch
        self._job = job
        self._carried = tensors.carried(job)
        self._state: Dict[int, Any] = {}
        torch.set_grad_enabled(False)

    def load(self, path: str, threads: int) -> None:
        """Open the program; what nobody vouches for as `cleaned` writes it, `ValueError` where that refuses it.

        TorchScript, which nothing here takes apart, is opened where somebody vouches for it.
        """
        content = None
        if not self._job.get("known"):
            with open(path, "rb") as stream:
                content = cleaned(stream.read())
        self._torch.set_num_threads(threads)
        if content is None and is_script(path):
            self._module: Any = self._torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            return
        self._module = open_program(self._torch, path, content).module()

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn samples into torch tensors."""
        return [self._torch.from_numpy(each) for each in tensors.feeds(self._np, raws, self._job)]

    def infer(self, feed: Any) -> Any:
        """Run one inference: host tensors in, host tensors out."""
        for index, tensor in self._state.items():
            feed[index] = tensor
        found = self._module(*feed)
        outputs = [found] if self._torch.is_tensor(found) else flat(found)
        for given, made in self._carried:
            self._state[given] = outputs[made]
        return outputs

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes, sample by sample."""
        return tensors.scores(self._np, self.tensors(outputs), self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return all outputs as arrays."""
        return [each.numpy() for each in outputs]

    def profile(self, path: str, threads: int, inputs: Any) -> List[Dict[str, Any]]:
        """Time every operator with torch's own profiler; those within others count with them."""
        self.load(path, threads)
        for index in range(WARM):
            self.infer(inputs[index % len(inputs)])
        with self._torch.autograd.profiler.profile() as profiler:
            for index in range(RUNS):
                self.infer(inputs[index % len(inputs)])
        events = sorted((e for e in profiler.function_events if e.cpu_parent is None), key=lambda e: e.time_range.start)
        each = len(events) // RUNS
        found = []
        for index in range(each):
            times = sorted(event.cpu_time_total for event in events[index::each])
            faster = times[: (RUNS + 1) // 2]  # what disturbs an inference only ever adds to it
            op = events[index].name
            found.append({"name": "%s_%d" % (op, index), "op": op, "where": "CPU", "ns": int(1000 * sum(faster) / len(faster))})
        return found


def flat(outputs: Any) -> List[Any]:
    """List the tensors in what a program returned, in the order in which it was exported; they may be nested."""
    if hasattr(outputs, "numpy"):
        return [outputs]
    inner = outputs.values() if hasattr(outputs, "values") else outputs if isinstance(outputs, (tuple, list)) else ()
    return [tensor for each in inner for tensor in flat(each)]


# ---------------------------------------------------------------- programs of others


def is_script(path: str) -> bool:
    """Return whether a file is TorchScript: it holds source, and no exported program."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("/code/" in name and name.endswith(".py") for name in names) and not any("/models/" in name for name in names)


def cleaned(content: bytes) -> bytes:
    """Write a program anew, the same bytes for the same file; `programs.Refused`, in one line, where it holds anything else."""
    try:
        return _written(read_members(content))
    except RecursionError:
        raise programs.Refused("is nested too deeply")
    except (zipfile.BadZipFile, struct.error, UnicodeError, NotImplementedError, OverflowError) as error:
        raise programs.Refused("is no whole zip file (%s)" % programs.shown(str(error)))


def open_program(torch: Any, path: str, content: Optional[bytes]) -> Any:
    """Load what `cleaned` has written, in which torch must see the members that are meant, or a file that is known."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    if content is None:
        refuse_code(path)
        return torch.export.load(path)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        meant = sorted(each.partition("/")[2] for each in archive.namelist())
    seen = sorted(torch._C.PyTorchFileReader(io.BytesIO(content)).get_all_records())
    if seen != meant:
        raise programs.Refused("torch sees other members than were written")
    return torch.export.load(io.BytesIO(content))


def refuse_code(path: str) -> None:
    """Raise ValueError where a vouched file plainly carries code: pickled objects, or sizes that are no arithmetic."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/custom_obj_" in name or "/opaque_obj_" in name:
                raise ValueError("%s: carries a pickled object (%s)" % (path, name))
            if name.endswith(".json") and "/models/" in name:
                for text in _expressions(json.loads(archive.read(name).decode("utf-8"))):
                    if "__" in text or not EXPRESSION.fullmatch(SYMBOL.sub(r"\1", text)):
                        raise ValueError("%s: carries a shape expression that is no arithmetic: %r" % (path, text))


def _expressions(value: Any) -> Any:
    """Find every shape expression in a program's JSON."""
    if isinstance(value, dict):
        if isinstance(value.get("expr_str"), str):
            yield value["expr_str"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            for found in _expressions(item):
                yield found


def read_members(content: bytes) -> Dict[str, bytes]:
    """Return an archive's members by their names below its one root folder.

    Stored members alone, back to back from the first byte on, each with the same
    name and size in its own header as in the directory: no reader can see others.
    """
    found = {}  # type: Dict[str, bytes]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if len(infos) > MOST_MEMBERS:
            raise programs.Refused("holds %d members" % len(infos))
        for info in infos:
            rest = _plain(info, infos[0].filename.partition("/")[0])
            if rest in found:
                raise programs.Refused("is there twice", programs.shown(info.filename))
            found[rest] = b""
        _check_layout(content, archive.start_dir, infos)
        for info in infos:
            found[info.filename.partition("/")[2]] = archive.read(info)
    missing = sorted(NEEDED - set(found))
    if missing:
        raise programs.Refused("is missing; only what torch 2.8 and later saves is read", missing[0])
    for rest, text in TEXTS.items():
        if found.get(rest, text) != text:
            raise programs.Refused("says %s" % programs.shown(found[rest][:60].decode("ascii", "replace")), rest)
    return found


def _plain(info: zipfile.ZipInfo, root: str) -> str:
    """Return a member's name below the root folder; `Refused` unless it is a plain file with one of the names that are read."""
    name = info.orig_filename
    top, _, rest = name.partition("/")
    if name != info.filename or re.search(r"[^ -\[\]-~]", name) or set(name.split("/")) & {"", ".", ".."} or len(name) > 512:
        raise programs.Refused("is no plain name", programs.shown(name))
    if top != root or (rest not in NEEDED | OTHERS and not TENSOR.fullmatch(rest)):
        raise programs.Refused("is no part of a plain program", programs.shown(name))
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise programs.Refused("is compressed, as torch never writes it", programs.shown(name))
    if info.flag_bits & ~0x0808:
        raise programs.Refused("is encrypted, or special otherwise", programs.shown(name))
    if info.external_attr >> 16 & 0o170000 not in (0, 0o100000) or info.external_attr & 0x10:
        raise programs.Refused("is a link or another special file", programs.shown(name))
    if info.file_size > MOST_JSON and not TENSOR.fullmatch(rest):
        raise programs.Refused("is too large (%d bytes)" % info.file_size, programs.shown(name))
    return rest


def _check_layout(content: bytes, directory: int, infos: List[zipfile.ZipInfo]) -> None:
    """Compare each member's own header with the directory's entry; nothing may lie before, between or after them."""
    end = 0
    starts = sorted(info.header_offset for info in infos) + [directory]
    for info, after in zip(sorted(infos, key=lambda each: each.header_offset), starts[1:]):
        where, own, narrow = programs.shown(info.filename), content[end : end + 30], min(info.file_size, 0xFFFFFFFF)
        if info.header_offset != end or own[:4] != b"PK\x03\x04":
            raise programs.Refused("does not begin where the one before it ends", where)
        flags, method, _, crc, packed, size, length, extra = struct.unpack("<HHIIIIHH", own[6:])
        if content[end + 30 : end + 30 + length] != info.filename.encode("ascii") or (flags, method) != (info.flag_bits, 0):
            raise programs.Refused("has another name or kind in its own header than in the directory", where)
        end += 30 + length + extra + info.file_size
        stated = struct.pack("<III", info.CRC, narrow, narrow)
        if not flags & 8:
            wrong = struct.pack("<III", crc, packed, size) != stated
        else:  # sizes are said after the data, in a short or in a wide form
            wide = struct.pack("<IQQ", info.CRC, info.file_size, info.file_size)
            wrong = content[end:after] not in (b"PK\x07\x08" + stated, b"PK\x07\x08" + wide)
            end = after
        if wrong:
            raise programs.Refused("has another size in its own header than in the directory", where)
    for _ in infos:
        end += 46 + sum(struct.unpack("<HHH", content[end + 28 : end + 34]))
    if content[end : end + 4] == b"PK\x06\x06":  # the wide form of the end, and what points to it
        end += 76
    if starts[0] != 0 or content[end : end + 4] != b"PK\x05\x06" or len(content) != end + 22:
        raise programs.Refused("holds bytes before, between or after its members")


def _written(members: Dict[str, bytes]) -> bytes:
    """Write what torch needs, without examples, traces and guards."""
    kept, tensors = {EXAMPLES: b"", ".data/version": b"6\n"}, {}  # type: Dict[str, bytes], Dict[str, bytes]
    kept.update(TEXTS)
    for folder, config_name in CONFIGS.items():
        config = _read(members, config_name, programs.CONFIG)
        for key, payload in config["config"].items():
            tensors[folder + payload["path_name"]] = _fitting(members, folder, key, payload)
        kept[config_name] = json.dumps(config, allow_nan=False).encode("ascii")
    kept[MODEL] = json.dumps(_read(members, MODEL, programs.PROGRAM), allow_nan=False).encode("ascii")
    unused = sorted(each for each in members if TENSOR.fullmatch(each) and each not in tensors)
    if unused:
        raise programs.Refused("belongs to no weight", unused[0])
    kept.update(tensors)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for each in sorted(kept):
            archive.writestr(zipfile.ZipInfo("program/" + each), kept[each])
    return made.getvalue()


def _read(members: Dict[str, bytes], where: str, check: programs.Check) -> Any:
    try:
        return programs.read(members[where], check)
    except programs.Refused as refused:
        raise programs.Refused(refused.what, where, *refused.where)


def _fitting(members: Dict[str, bytes], folder: str, key: str, payload: Dict[str, Any]) -> bytes:
    """Return a tensor's bytes; `Refused` where its sizes reach beyond them."""
    member, meta = folder + payload["path_name"], payload["tensor_meta"]
    if not TENSOR.fullmatch(member) or member not in members:
        raise programs.Refused("%s is no member" % programs.shown(member), CONFIGS[folder], key)
    sizes, strides = ([size.get("as_int", -1) for size in meta[each]] for each in ("sizes", "strides"))
    offset, width, count = meta["storage_offset"].get("as_int", -1), programs.WIDTHS[meta["dtype"]], 1
    if len(sizes) != len(strides) or min(sizes + strides + [offset]) < 0:
        raise programs.Refused("has an open or a negative size", CONFIGS[folder], key)
    for size in sizes:
        count *= size
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides)) + 1 if count else 0
    if max(last, count) * width > len(members[member]) or len(members[member]) % width:
        raise programs.Refused("has %d numbers and reaches to %d, in %d bytes" % (count, last, len(members[member])), member)
    return members[member]
