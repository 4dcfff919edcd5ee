"""What a language model is asked: prompts of a file and their references, or random tokens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.errors import BundleError, InputError
from edgebench.files import inside, parse_json, sha256_json
from edgebench.schema import Bundle, Prompts
from edgebench.schema.file import FileDescription, FileTensor

FILE = "prompts.jsonl"
MOST, MOST_BYTES, LARGEST = 256, 1 << 16, 16 << 20
"""Prompts, bytes of one, and bytes of their file."""
ADVICE = 'a prompt a line (.txt), or {"prompt": …, "reference": …} a line (.jsonl)'


@dataclass(frozen=True)
class Prompt:
    """One prompt, and the right answer where that is known."""

    prompt: str
    reference: str | None = None

    def values(self) -> dict[str, str]:
        """Return it as it is written."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Asked:
    """What is asked of a language model, as a bundle holds it."""

    spec: Prompts
    prompts: tuple[Prompt, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the prompts into a bundle's folder."""
        if self.prompts:
            lines = [json.dumps(each.values(), ensure_ascii=False) + "\n" for each in self.prompts]
            (folder / FILE).write_text("".join(lines), encoding="utf-8")

    def arrays(self, described: FileDescription) -> dict[str, NDArray[Any]]:
        """Return the prompts as UTF-8, zeros after it: uint8 [n, 1, bytes]; none where tokens are random."""
        if not self.prompts:
            return {}
        texts = [each.prompt.encode() for each in self.prompts]
        array = np.zeros((len(texts), 1, max(map(len, texts))), np.uint8)
        for row, text in zip(array, texts, strict=True):
            row[0, : len(text)] = np.frombuffer(text, np.uint8)
        return {described.inputs[0].name: array}


def asked(
    path: str, described: FileDescription, file: Path | None, new_tokens: int, tokens: int, several: bool = False
) -> Asked | None:
    """Read what a language model is asked; None for other files. `InputError` where prompts are missing, or have no use.

    several: prompts are given for some of several files, and the others pass them over.
    """
    if not described.asks:
        if file is not None and not several:
            raise InputError(f"--prompts {file}: goes with a language model, and {path} is none; leave it out")
        return None
    if new_tokens < 2 or new_tokens > 4096:
        raise InputError(f"--max-new-tokens {new_tokens}: from 2, for the time between two tokens, to 4096")
    if described.asks == "tokens":
        if file is not None:
            raise InputError(
                f"--prompts {file}: what runs {path} makes random tokens itself; leave it out, or bring an ONNX folder"
            )
        return Asked(Prompts(count=1, prompt_tokens=tokens, max_new_tokens=new_tokens))
    if file is None:
        raise InputError(f"{path}: is a language model and needs something to answer: --prompts FILE, {ADVICE}")
    prompts = read(file)
    digest = sha256_json([each.values() for each in prompts])
    return Asked(Prompts(file=FILE, sha256=digest, count=len(prompts), max_new_tokens=new_tokens), prompts)


def closed(described: FileDescription, given: Asked | None) -> FileDescription:
    """Give a language model's input and output the sizes that its prompts and answers have."""
    if given is None:
        return described
    sizes = [array.shape[1:] for array in given.arrays(described).values()] or [(1, given.spec.prompt_tokens)]
    inputs = tuple(dataclasses.replace(each, shape=sizes[0]) for each in described.inputs)
    return dataclasses.replace(described, inputs=inputs, outputs=(FileTensor("tokens", "int32", (1, given.spec.max_new_tokens)),))


def read(path: Path) -> tuple[Prompt, ...]:
    """Read prompts of a `.txt` or `.jsonl`; `InputError` where there are none, too many, or what is none."""
    if not path.is_file():
        raise InputError(f"--prompts {path}: no such file; give {ADVICE}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"--prompts {path}: more than {LARGEST >> 20} MiB; give fewer prompts")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"--prompts {path}: is no UTF-8 text; give {ADVICE}") from error
    found = tuple(_prompts(path, lines))
    if not 1 <= len(found) <= MOST:
        raise InputError(f"--prompts {path}: {len(found) or 'no'} prompts, 1 to {MOST} are taken; give {ADVICE}")
    return found


def _prompts(path: Path, lines: list[str]) -> Iterator[Prompt]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt = Prompt(line) if path.suffix.lower() == ".txt" else _of_json(f"--prompts {path}: line {number}", line)
        if not prompt.prompt.strip() or "\0" in prompt.prompt or len(prompt.prompt.encode(errors="replace")) > MOST_BYTES:
            raise InputError(f"--prompts {path}: line {number}: a prompt has 1 to {MOST_BYTES} bytes, and no zero among them")
        yield prompt


def _of_json(where: str, line: str) -> Prompt:
    try:
        found: Any = parse_json(line)
        known = isinstance(found, Mapping) and "prompt" in found and set(found) <= {"prompt", "reference"}
        if not known or not all(isinstance(value, str) for value in found.values()):
            raise ValueError("other keys or values than those two texts")
        "".join(found.values()).encode()
    except (ValueError, UnicodeEncodeError, RecursionError) as error:
        raise InputError(f"{where}: {str(error)[:100]}; give {ADVICE}") from error
    return Prompt(**found)


def of_bundle(folder: Path, bundle: Bundle) -> tuple[dict[str, str], ...]:
    """Read a bundle's prompts and references as they are written; none where tokens are random, or for other models."""
    if bundle.prompts is None or bundle.prompts.file is None:
        return ()
    path = inside(folder, bundle.prompts.file)
    found = tuple(each.values() for each in read(path))
    if sha256_json(list(found)) != bundle.prompts.sha256:
        raise BundleError(f"{path}: was changed; make the bundle again")
    return found
