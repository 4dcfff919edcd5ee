"""Call a user's own factory, say in one line what goes wrong inside it, and know when its source has changed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgebench.errors import EdgebenchError, InputError

KEYWORDS = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels"),
    "channels": ("channels", "in_chans", "in_channels", "num_channels"),
    "size": ("size", "img_size", "image_size"),
}
"""What a factory may call what it is told: the first of these that it takes is given."""
INSTALLED = {"site-packages", "dist-packages"}

_imported: dict[str, str] = {}
"""Digests of the sources that modules had when they were imported."""


def call(name: str, classes: int, channels: int, size: int) -> Any:
    """Call `package.module:factory` with those of class count, channels and size that it takes.

    `InputError` in one line, with the user's file and line where it is known:
    it cannot be imported, raises, wants more than that, or returns no `torch.nn.Module`.
    """
    import torch

    factory = _find(name)
    try:
        network = _called(factory, {"classes": classes, "channels": channels, "size": size})
    except EdgebenchError:
        raise
    except Exception as error:
        raise InputError(f"{name}: {told(error)}; mend the factory, or choose another size, channels or class count") from error
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"{name}: returned {type(network).__name__}; a factory returns a torch.nn.Module")
    return network


def _find(name: str) -> Callable[..., Any]:
    """Import a factory, anew where its source is another than when it was imported."""
    module_name, _, attribute = name.partition(":")
    _search_here()
    files = dict(_sources(module_name))
    digest = _digest(files)
    if _imported.get(module_name, digest) != digest:
        importlib.invalidate_caches()
        for each in files:
            sys.modules.pop(each, None)
    _imported[module_name] = digest
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        where = "" if _place(error) is None else f" ({_place(error)})"
        raise InputError(
            f"{name}: {_line(error)}{where}; give package.module:factory that Python can import from here"
        ) from error
    except Exception as error:
        raise InputError(f"{name}: {told(error)}; mend the module") from error
    if not callable(found):
        raise InputError(f"{name}: is a {type(found).__name__}; give package.module:factory, which can be called")
    made: Callable[..., Any] = found
    return made


def _called(factory: Callable[..., Any], given: Mapping[str, int]) -> Any:
    """Call with what the signature takes; what takes any keyword is told as we call things, then as torchvision does."""
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # written in C
        parameters = {}
    taken: dict[str, int] = {}
    for what, value in given.items():
        known = next((keyword for keyword in KEYWORDS[what] if keyword in parameters), None)
        taken |= {} if known is None else {known: value}
    wanted = [
        each.name
        for each in parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL) and each.name not in taken
    ]
    if wanted:
        known_names = ", ".join(name for names in KEYWORDS.values() for name in names)
        raise InputError(
            f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', factory)}: wants {', '.join(wanted)}, "
            f"and a factory is told {known_names} alone; wrap it in a function"
        )
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if not open_ended or any(name in taken for name in KEYWORDS["classes"]):
        return factory(**taken)
    try:
        return factory(**{**given, **taken})
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
    return factory(num_classes=given["classes"], **taken)


# ---------------------------------------------------------------- what went wrong, and where


def told(error: BaseException) -> str:
    """Tell an error in one line: its type, its first line, and where in the user's own source it happened."""
    place = _place(error)
    return f"{type(error).__name__}: {_line(error)}" + ("" if place is None else f" ({place})")


def _line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)[:200]


def _place(error: BaseException) -> str | None:
    """Name the innermost line that is neither an installed package's nor our own; else the innermost that is not ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = [(Path(frame.f_code.co_filename), number) for frame, number in traceback.walk_tb(error.__traceback__)]
    ours = Path(__file__).resolve().parent.parent
    others = [(path, number) for path, number in frames if path.suffix == ".py" and ours not in path.resolve().parents]
    own = [(path, number) for path, number in others if not INSTALLED & set(path.parts) and "importlib" not in path.parts]
    found = (own or others)[-1:]
    return f"{found[0][0].name}:{found[0][1]}" if found else None


# ---------------------------------------------------------------- source


def digest(name: str) -> str | None:
    """Hash a factory's source: its module's file, its packages' `__init__.py`, and what these import of the user's own.

    Reads files and runs nothing. The user's own is what lies below the folder
    that the module is found in; of an installed package the one file counts,
    and its version. What is imported under a name that is put together at run time is not
    seen. None where the module is not found.
    """
    _search_here()
    files = dict(_sources(name.partition(":")[0]))
    return _digest(files) if files else None


def _digest(files: Mapping[str, Path]) -> str:
    found = hashlib.sha256()
    for module, path in sorted(files.items()):
        found.update(f"{module}\0{_version(module) if INSTALLED & set(path.parts) else ''}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def _sources(module: str) -> Iterator[tuple[str, Path]]:
    """List a module and what it imports, by name, as far as it is found below the same folder."""
    root = _root(module)
    if root is None:
        return
    waiting, seen = [module], set[str]()
    while waiting:
        name = waiting.pop()
        for each in _with_parents(name):
            path = None if each in seen else _file(root, each)
            seen.add(each)
            if path is None:
                continue
            yield each, path
            if path.suffix == ".py" and not INSTALLED & set(path.parts):
                waiting += _imports(each, path)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _root(module: str) -> Path | None:
    """Find the folder of Python's path that holds a module's outermost package; None: it is none of files."""
    top = module.partition(".")[0]
    folders = (Path(entry or ".") for entry in sys.path)
    return next((folder.resolve() for folder in folders if _file(folder, top) or (folder / top).is_dir()), None)


def _file(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    beside = sorted(base.parent.glob(f"{base.name}.*.so")) if base.parent.is_dir() else []
    return next((path for path in (base / "__init__.py", base.with_name(f"{base.name}.py"), *beside) if path.is_file()), None)


def _imports(module: str, path: Path) -> Iterator[str]:
    """List all that a file may import, names of attributes among them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            parts = parts[: len(parts) - node.level + 1] if node.level else parts
            base = ".".join(part for part in (*parts, node.module or "") if part)
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _search_here() -> None:
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` would: what lies in the current folder can be imported
