"""A local language model puts facts into other words: a folder of ONNX Runtime GenAI, on this computer's processor."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebench import plugins
from edgebench.agent import facts
from edgebench.bundle import kinds
from edgebench.bundle.predict import undisturbed
from edgebench.errors import ExportError, InputError, MissingExtra
from edgebench.report import words
from edgebench.schema import Record

RUNTIME = "genai"
MOST = 96


@dataclass(frozen=True)
class InWords:
    """What a record says, and what a language model made of it."""

    sentences: tuple[str, ...]
    """By a template."""
    model: str | None = None
    generated: str | None = None
    """By the language model, greedy; None: none was given."""
    strange: tuple[str, ...] = ()
    """Numbers of it that stand in no sentence."""

    def values(self) -> dict[str, Any]:
        """Return it as plain JSON values, marked."""
        found: dict[str, Any] = {"sentences": list(self.sentences), "by": words.MARK}
        if self.generated is not None and self.model is not None:
            mark = words.MODEL_MARK.format(name=self.model)
            found["model"] = {"text": self.generated, "by": mark, "numbers_not_of_the_record": list(self.strange)}
        return found


def in_words(record: Record, model: Path | None = None, most: int = MOST) -> InWords:
    """Put a record into sentences, and let a language model's folder say them again in `most` tokens at most.

    `InputError` for a folder that is none, or names code; `MissingExtra` without the runtime; `ExportError` where it fails.
    """
    said = tuple(words.sentences(record))
    if model is None:
        return InWords(said)
    text = _answer(model, words.prompt(said), most)
    return InWords(said, model.resolve().name, text, tuple(words.strange_numbers(text, said)))


def _answer(folder: Path, prompt: str, most: int) -> str:
    described = kinds.read_file(folder)
    if described.format != RUNTIME:
        raise InputError(f"{folder}: is {described.format}, and {RUNTIME} is wanted here; give a folder of ONNX Runtime GenAI")
    if importlib.util.find_spec("onnxruntime_genai") is None:
        raise MissingExtra(f"generating with {folder}", "llm", "onnxruntime_genai")
    module = plugins.load_device("runtimes", RUNTIME)
    try:
        with undisturbed():
            runtime = module.Runtime({"prompts": {"max_new_tokens": most}, "options": {}})
            runtime.load(str(folder / described.entry), facts.cores())
            tokens = runtime.generate(runtime.fitted(prompt))["tokens"]
            return str(runtime.text(tokens)).strip()
    except Exception as error:  # the library raises anything
        raise ExportError(f"{folder}: does not generate: {' '.join(str(error).split())[:300]}") from error
