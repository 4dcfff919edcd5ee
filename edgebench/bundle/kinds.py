"""What kind of file somebody brought, by its content: the format that takes it, or what to do instead."""

from __future__ import annotations

import glob
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from edgebench import plugins
from edgebench.errors import InputError
from edgebench.files import archive_names
from edgebench.models.foreign import TO_ONNX, foreign
from edgebench.schema.file import FileDescription, Unreadable

HEAD = 1 << 16
READERS = "edgebench.exporters"
ENDINGS = (
    ".onnx",
    ".tflite",
    ".pt2",
    ".torchscript",
    ".pt",
    ".engine",
    ".plan",
    ".mlpackage",
    ".mlmodel",
    ".keras",
    ".h5",
    ".pb",
    ".gguf",
)
"""What model files are usually called; messages alone depend on it."""
CHECKPOINT = "`edgebench export FILE --architecture NAME --format onnx` makes a file of it that runs"
HUGGING_FACE = "`edgebench export hf:DIR --format onnx` exports an image classifier, `optimum-cli export onnx` other networks"


def is_brought(text: str) -> bool:
    """Return whether a word of the command line means a model file, or was meant to: by what lies there, or by its ending."""
    path = Path(text)
    if path.is_dir():
        return not (path / "bundle.json").exists() and (path.suffix in ENDINGS or _folder(path) is not None)
    return path.suffix.lower() in ENDINGS or (path.is_file() and path.suffix.lower() not in (".yaml", ".yml"))


def expanded(texts: list[str]) -> list[str]:
    """Replace patterns, as a shell that was kept from it would; `InputError` where one matches nothing."""
    found: list[str] = []
    for text in texts:
        if not glob.has_magic(text) or Path(text).exists():
            found.append(text)
            continue
        matched = sorted(glob.glob(text, recursive=True))
        if not matched:
            raise InputError(f"{text}: matches no file; look at the folder, or name the file")
        found += matched
    return list(dict.fromkeys(found))


def read_file(path: Path) -> FileDescription:
    """Describe a model file; `InputError` says why it is none that can be measured, and what to do."""
    head = _head(path)
    for plugin in _readers():
        recognizes: Callable[[bytes, Path], bool] = plugins.declared(plugin, "recognizes", _never)
        if recognizes(head, path):
            read: Callable[[Path], FileDescription] = plugins.declared(plugin, "read", read_file)
            try:
                return read(path)
            except (Unreadable, OSError) as error:
                raise InputError(f"{path}: {error}" + ("" if ";" in str(error) else "; fetch or export it again")) from error
    what, advice = _refused(path, head)
    raise InputError(f"{path}: {what}; {advice}")


def _never(head: bytes, path: Path) -> bool:
    """Recognize nothing: formats that no file is brought of."""
    return False


def _readers() -> Iterator[ModuleType]:
    for name in plugins.names(READERS):
        yield plugins.load(READERS, name, "format")


def _head(path: Path) -> bytes:
    """Read a file's beginning, empty for a folder; `InputError` where there is none, or nothing in it."""
    if path.is_dir():
        return b""
    if not path.exists():
        near = sorted(each.name for each in path.parent.glob(f"*{path.suffix}"))[:3] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file" + (f"; beside it: {', '.join(near)}" if near else "; look at its path"))
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); look at its permissions") from error
    if not head:
        raise InputError(f"{path}: is empty; fetch or export it again")
    return head


def _refused(path: Path, head: bytes) -> tuple[str, str]:
    """Say what a file is that no format takes, and what to do."""
    if path.is_dir():
        return _folder(path) or ("is a folder without a model that is known", "name the model's file")
    if told := foreign(head, archive_names(path)):
        return told
    if head.startswith(b"PK\x03\x04") or zipfile.is_zipfile(path):
        return _archive(path)
    return _binary(head) or _text(head) or _strange(path, head)


def _binary(head: bytes) -> tuple[str, str] | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle, which runs code when it is loaded, and is not opened", CHECKPOINT.replace("FILE", "CHECKPOINT")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20:
        return "holds weights alone (safetensors), no network", CHECKPOINT
    return ("is a TensorFlow graph", TO_ONNX) if _is_saved_model(head) else None


def _text(head: bytes) -> tuple[str, str] | None:
    text = head.lstrip()[:300].lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a model", "fetch the file itself: pages of hosts have a link for downloading"
    if text.startswith(b"<?xml") and b"<net" in text:
        return "is an OpenVINO network, whose runtime is not measured here", "bring the ONNX file that it was made from"
    return None


def _strange(path: Path, head: bytes) -> tuple[str, str]:
    if path.suffix.lower() == ".mlmodel":
        return "is a Core ML model without its package", "save it as .mlpackage with coremltools"
    shown, named = ascii(head[:12].decode("latin-1")), path.suffix.lower() in ENDINGS
    what = f"is no {path.suffix[1:]} file whatever its name says" if named else "is no model file that is known"
    return f"{what} (it begins with {shown})", "fetch or export it again" if named else "bring .onnx, .tflite, .pt2 or .mlpackage"


def _folder(path: Path) -> tuple[str, str] | None:
    """Say what a folder is that no format takes; None where it is nothing that is known."""
    if (path / "genai_config.json").is_file():
        return "is no whole folder of ONNX Runtime GenAI", "build it again with onnxruntime_genai.models.builder"
    if (path / "saved_model.pb").is_file():
        return "is a TensorFlow SavedModel", TO_ONNX
    if (path / "config.json").is_file() and any(path.glob(each) for each in ("*.safetensors", "pytorch_model*.bin")):
        return "is a Hugging Face model folder", HUGGING_FACE.replace("DIR", str(path))
    if (path / "model_index.json").is_file():
        return (
            "is a Hugging Face pipeline of several networks",
            "name one of its ONNX files, or export it with `optimum-cli export onnx`",
        )
    held = sorted(each.name for ending in ENDINGS for each in path.glob(f"*{ending}"))
    if held:
        return "is a folder with model files", f"name them: {path / held[0]}" + (
            f", or {path}/*{Path(held[0]).suffix}" * (len(held) > 1)
        )
    return ("is no whole Core ML package", "fetch or export it again") if path.suffix == ".mlpackage" else None


def _archive(path: Path) -> tuple[str, str]:
    """Say what an archive is that no format takes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        return f"is an archive that is cut short or broken ({str(error)[:80]})", "fetch or export it again"
    if any(name.endswith("data.pkl") for name in names):
        return "is a torch checkpoint: weights alone, or pickled objects, which are not opened", CHECKPOINT
    if names and all(name.endswith(".npy") for name in names):
        return "holds arrays (.npz), no network", "give them with --input NAME=FILE beside the model's file"
    if any(name.endswith("Manifest.json") and ".mlpackage" in name for name in names):
        return "is an archive of a Core ML package", "unpack it and name the .mlpackage"
    held = next((name for name in names if Path(name).suffix in ENDINGS), None)
    return "is an archive of something else", "unpack it" + (f" and name {held}" if held else " and name the model's file")


def _is_saved_model(head: bytes) -> bool:
    """Return whether a file begins as a SavedModel (version 1, then graphs) or a GraphDef (nodes) does."""
    return (head[:3] == b"\x08\x01\x12" and b"serve" in head) or (head[:1] == b"\x0a" and b"Placeholder" in head[:4096])
