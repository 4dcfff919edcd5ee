"""What every word of a device must keep to: it may be broken or hostile, and steers nothing before it was checked here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edgebench.errors import TransportError

MOST = 2**63 - 1
DEPTH, ITEMS, LETTERS = 6, 20_000, 10_000
"""Of what has no form of its own: how deep it may be nested, how many values it may have, how long each text is."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What would steer a terminal, the direction of text included."""


class BadEvent(TransportError):
    """The device sent what no device may send; the message says what."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the device sent {what}")


def plain(text: str) -> str:
    """Replace what steers a terminal; line breaks and tabs stay."""
    return CONTROL.sub("\ufffd", text)


def one_line(text: str, most: int = 1000) -> str:
    """Write a text for people in one line, cut where it is long."""
    return " ".join(plain(text[: 4 * most]).split())[:most]


def free(value: Any) -> Any:
    """Return a value that has no form of its own, its texts made plain; ValueError where it is too deep or too large."""
    left = ITEMS

    def taken(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {ITEMS} values")
        if isinstance(value, str):
            if len(value) > LETTERS:
                raise ValueError(f"a text of {len(value)} characters")
            value.encode()  # halves of a character are no text
            return plain(value)
        if isinstance(value, dict | list):
            if depth == 0:
                raise ValueError(f"nested deeper than {DEPTH}")
            if isinstance(value, list):
                return [taken(each, depth - 1) for each in value]
            return {taken(key, 0): taken(each, depth - 1) for key, each in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no number")
        if isinstance(value, int) and not -MOST <= value <= MOST:
            raise ValueError("a number of more than 63 bits")
        return value

    return taken(value, DEPTH)


Short = Annotated[str, StringConstraints(max_length=300), AfterValidator(plain)]
Text = Annotated[str, StringConstraints(max_length=LETTERS), AfterValidator(plain)]
Line = Annotated[str, AfterValidator(one_line)]
"""For people, and cut where it is long."""
WORD = r"^[A-Za-z0-9][A-Za-z0-9_. +:-]{0,79}$"
Word = Annotated[str, StringConstraints(pattern=WORD)]
"""Becomes a name of ours: of a runtime, of a column."""
Natural = Annotated[int, Field(ge=0, le=MOST)]
Count = Annotated[int, Field(ge=1, le=1 << 31)]
Cores = Annotated[int, Field(ge=1, le=1 << 16)]
Duration = Annotated[int, Field(ge=0, le=10**15)]
"""Nanoseconds: eleven days."""
Number = Annotated[float, Field(ge=-1e18, le=1e18)]
Positive = Annotated[float, Field(ge=0, le=1e18)]
Free = Annotated[Any, AfterValidator(free)]


class Said(BaseModel):
    """What a device says; fields that a newer agent adds are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class Kept(Said):
    """The same where fields that are not known here are kept."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _bounds_the_rest(self) -> Kept:
        """Check what has no field here, and make its texts plain."""
        if self.__pydantic_extra__:
            self.__pydantic_extra__.update(free(self.__pydantic_extra__))
        return self

    def values(self) -> dict[str, Any]:
        """Return what was said, and nothing that was not."""
        return self.model_dump(exclude_unset=True)


T = TypeVar("T", bound=BaseModel)


def read(model: type[T], event: Mapping[str, Any]) -> T:
    """Read an event; `BadEvent` says in one line what is wrong with it."""
    try:
        return model.model_validate({name: value for name, value in event.items() if name != "event"})
    except ValidationError as error:
        kind = one_line(str(event.get("event")), 40)
        raise BadEvent(one_line(f"{kind!r} {_wrong(error)}", 300)) from error


def _wrong(error: ValidationError) -> str:
    """Say what is wrong first."""
    wrong = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in wrong["loc"])
    if wrong["type"] == "missing":
        return f"without {where}"
    if wrong["type"] == "value_error":
        return f"with a wrong {where or 'content'}: {wrong['msg'].removeprefix('Value error, ')}"
    return f"whose {where} {re.sub('^[A-Z][a-z]+ (?=should)', '', wrong['msg'])} ({_shown(wrong['input'])})"


def _shown(value: Any) -> str:
    """Write the beginning of a value, however large it is."""
    if isinstance(value, dict | list):
        return f"{len(value)} values"
    if isinstance(value, int) and not -MOST <= value <= MOST:
        return f"{value.bit_length()} bits"
    return repr(value[:60] if isinstance(value, str) else value)[:80]
