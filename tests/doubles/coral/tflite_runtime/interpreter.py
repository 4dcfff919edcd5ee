"""The interpreter of tflite-runtime 2.5: the API of that version alone, and the delegate loaded from a real library."""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any

import numpy as np

import tflite_runtime

CUSTOM_OP = "edgetpu-custom-op"


class Delegate:
    """A delegate from a shared library; a null pointer is a ValueError without a word."""

    def __init__(self, library: str, options: dict[str, str] | None = None) -> None:
        self._library = ctypes.pydll.LoadLibrary(library)
        given = list((options or {}).items())
        strings = ctypes.c_char_p * len(given)
        said: list[bytes] = []
        report = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(said.append)
        create = self._library.tflite_plugin_create_delegate
        create.restype = ctypes.c_void_p
        keys, values = strings(*(key.encode() for key, _ in given)), strings(*(str(value).encode() for _, value in given))
        self._pointer = create(keys, values, ctypes.c_size_t(len(given)), report)
        if self._pointer is None:
            raise ValueError(b"".join(said).decode())


def load_delegate(library: str, options: dict[str, str] | None = None) -> Delegate:
    """Load a delegate, with the words of the real one where that fails."""
    try:
        return Delegate(library, options)
    except ValueError as error:
        raise ValueError(f"Failed to load delegate from {library}\n{error}") from error


class Interpreter:
    """Runs what the double of the compiler put into the custom operator, if there is a delegate that takes it."""

    def __init__(
        self,
        model_path: str | None = None,
        model_content: bytes | None = None,
        experimental_delegates: list[Delegate] | None = None,
        num_threads: int | None = None,
        experimental_op_resolver_type: Any = None,
        experimental_preserve_all_tensors: bool = False,
    ) -> None:
        if model_path is None:
            raise ValueError("`model_path` or `model_content` must be specified.")
        with open(model_path, "rb") as stream:
            self._operators, source = _read(stream.read())
        numbers = [int(part) for part in re.findall(r"\d+", tflite_runtime.__version__)[:2]]
        if experimental_delegates and numbers >= [2, 12]:
            os.abort()  # the structures of both have other layouts
        self._delegated = bool(experimental_delegates)
        self._real = _real(source, num_threads)
        self._allocated = False

    def allocate_tensors(self) -> None:
        if CUSTOM_OP in self._operators and not self._delegated:
            place = self._operators.index(CUSTOM_OP)
            raise RuntimeError(
                f"Encountered unresolved custom op: {CUSTOM_OP}.Node number {place} ({CUSTOM_OP}) failed to prepare."
            )
        self._real.allocate_tensors()
        self._allocated = True

    def get_input_details(self) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = self._real.get_input_details()
        return details

    def get_output_details(self) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = self._real.get_output_details()
        return details

    def set_tensor(self, tensor_index: int, value: np.ndarray[Any, Any]) -> None:
        if not self._allocated:
            raise ValueError("Cannot set tensor: Tensor is unallocated. Try calling allocate_tensors() first")
        self._real.set_tensor(tensor_index, value)

    def invoke(self) -> None:
        if not self._allocated:
            raise RuntimeError("Invoke called on model that is not ready.")
        self._real.invoke()

    def get_tensor(self, tensor_index: int) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._real.get_tensor(tensor_index)
        return found


def _read(content: bytes) -> tuple[list[str], bytes]:
    """Return a file's custom operators, and the source that the first carries; a file without one is its own."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    operators = model.subgraphs[0].operators
    names = [(model.operatorCodes[operator.opcodeIndex].customCode or b"").decode() for operator in operators]
    carried = [operator.customOptions for operator, name in zip(operators, names, strict=True) if name == CUSTOM_OP]
    return names, bytes(bytearray(carried[0])) if carried else content


def _real(content: bytes, threads: int | None) -> Any:
    from ai_edge_litert.interpreter import Interpreter as Real

    return Real(model_content=content, num_threads=threads)
