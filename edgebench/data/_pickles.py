"""Pickles of plain values and arrays of bytes, read without unpickling: opcodes are told apart, and no class is looked up.

Python's `pickle` imports and calls what a file names. Here a name is a word: the few that CIFAR's files have stand for
what this module makes itself (an array of uint8), and any other is refused.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebench.data._files import open_regular
from edgebench.errors import DataError

MOST_BYTES, MOST_OPCODES = 1 << 28, 1_000_000
"""Of a file, and of what its text and arrays become; steps to read it (a batch of CIFAR has 50 000)."""
ARRAY = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
KINDS = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
CODES = ("u1", "|u1")
"""Of an array's elements."""


@dataclass
class _Name:
    """A global that a file names."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


class _Budget:
    """How many bytes may still be made: a file can name the same text again and again."""

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def encoded(self, text: str) -> bytes:
        """Return text as bytes, by Latin-1."""
        self.left -= len(text)
        if self.left < 0:
            raise _Refused("becomes far larger than it is")
        return text.encode("latin-1")


@dataclass
class _Made:
    """What calling a global made: what it is, and its state once that was read."""

    kind: str
    budget: _Budget
    state: Any = None
    array: Any = None
    """Its values, once they were asked for."""


class _Mark:
    """Where a list of values begins."""


def read_pickle(path: Path) -> Any:
    """Read a pickle of dictionaries, lists, tuples, numbers, text (bytes as they are) and uint8 arrays; `DataError` for others.

    Text of Python 2, whose encoding nobody wrote down, becomes str by Latin-1, as torchvision reads it.
    """
    with open_regular(path) as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB, which no batch of CIFAR is; look whether it is one")
    try:
        return _Machine().run(content)
    except _Refused as error:
        raise DataError(f"{path}: a pickle that {error}: nothing is looked up or run; fetch the published file") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: no complete pickle of plain values ({type(error).__name__}); fetch the file again") from error


class _Refused(Exception):
    """What a pickle asks for that is none of its business."""


class _Machine:
    """A stack and a memo; every opcode that is wanted, and no other."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = _Budget()

    def run(self, content: bytes) -> Any:
        """Carry out every opcode up to STOP; returns what is left."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            name = opcode.name
            if number > MOST_OPCODES:
                raise _Refused(f"has more than {MOST_OPCODES} steps")
            if name == "STOP":
                return _value(self.stack.pop())
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in LITERALS:
                self.stack.append(argument)
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            elif name not in IGNORED:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise _Refused(f"has the opcode {name}")
                step(argument)
        raise ValueError("no STOP")

    def _marked(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _Mark:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _binput(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    _long_binput = _put = _binput

    def _memoize(self, argument: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    _long_binget = _get = _binget

    def _mark(self, argument: None) -> None:
        self.stack.append(_Mark)

    def _append(self, argument: None) -> None:
        value = self.stack.pop()
        _list(self.stack[-1]).append(_value(value))

    def _appends(self, argument: None) -> None:
        values = self._marked()
        _list(self.stack[-1]).extend(map(_value, values))

    def _list(self, argument: None) -> None:
        self.stack.append(list(map(_value, self._marked())))

    def _setitem(self, argument: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _dict(self.stack[-1])[_key(key)] = _value(value)

    def _setitems(self, argument: None) -> None:
        values = self._marked()
        _dict(self.stack[-1]).update(zip(map(_key, values[::2]), map(_value, values[1::2]), strict=True))

    def _dict(self, argument: None) -> None:
        values = self._marked()
        self.stack.append(dict(zip(map(_key, values[::2]), map(_value, values[1::2]), strict=True)))

    def _tuple(self, argument: None) -> None:
        self.stack.append(tuple(self._marked()))

    def _take(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(found)

    def _tuple1(self, argument: None) -> None:
        self._take(1)

    def _tuple2(self, argument: None) -> None:
        self._take(2)

    def _tuple3(self, argument: None) -> None:
        self._take(3)

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_known(_Name(module, name)))

    def _stack_global(self, argument: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_known(_Name(str(module), str(name))))

    def _reduce(self, argument: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(called, arguments, self.budget))

    def _build(self, argument: None) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Made):
            raise _Refused("sets the state of something that is no array")
        self.stack[-1].state = state


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES"),
    *("SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "FLOAT", "BINFLOAT"),
}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
IGNORED = {"PROTO", "FRAME"}


def _known(found: _Name) -> _Name:
    if found.key not in ARRAY | KINDS:
        raise _Refused(f"names {found.module[:80]}.{found.name[:80]}")
    return found


def _call(called: Any, arguments: Any, budget: _Budget) -> Any:
    """Do what a call of a known name means."""
    if not isinstance(called, _Name):
        raise _Refused("calls something that is no name")
    if called.key in ARRAY:
        return _Made("array", budget)
    if called.name == "dtype":
        return _Made(str(arguments[0]), budget)
    if called.name == "encode":
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise _Refused("encodes text otherwise than by Latin-1")
        return budget.encoded(str(text))
    raise _Refused(f"calls {called.module}.{called.name}")


def _value(found: Any) -> Any:
    """Return a value, an array where it is one."""
    if isinstance(found, _Name) or found is _Mark:
        raise _Refused("holds the name of a class")
    if not isinstance(found, _Made):
        return found
    if found.kind != "array":
        raise _Refused("holds a kind of numbers and no array")
    if found.array is None:
        found.array = _array(found.budget, *found.state)
    return found.array


def _array(
    budget: _Budget, version: Any, shape: tuple[int, ...], kind: Any, fortran: bool, raw: str | bytes
) -> NDArray[np.uint8]:
    if not isinstance(kind, _Made) or kind.kind not in CODES:
        raise _Refused("holds an array of something else than bytes (uint8)")
    content = budget.encoded(raw) if isinstance(raw, str) else raw
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) != len(content):
        raise ValueError("an array of another size than it says")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _key(found: Any) -> str | int:
    if isinstance(found, bytes):
        return found.decode("latin-1")
    if not isinstance(found, str | int):
        raise _Refused("has keys that are no text")
    return found


def _list(found: Any) -> list[Any]:
    if type(found) is not list:
        raise TypeError("no list")
    return found


def _dict(found: Any) -> dict[Any, Any]:
    if type(found) is not dict:
        raise TypeError("no dictionary")
    return found
