"""What a device's end says of a program that outlives the connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgebench.errors import TransportError


class Told(BaseModel):
    """What the program wrote, one character for each byte; without any it is a sign of life."""

    model_config = ConfigDict(strict=True, frozen=True)
    at: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    data: Annotated[str, StringConstraints(max_length=1 << 20, pattern="^[\\x00-\u00ff]*$")] = ""


class _Ending(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    stderr: str
    reason: str


class Ended(BaseModel):
    """The program has ended, and how."""

    model_config = ConfigDict(strict=True, frozen=True)
    ended: _Ending

    @property
    def last_words(self) -> str:
        """Return the end of its standard error, and the reason."""
        parts = (self.ended.stderr.strip(), self.ended.reason)
        return "\n".join(part for part in parts if part)


def told(message: Mapping[str, Any]) -> Told | Ended:
    """Read a message; `TransportError` where it is none that a device's end sends."""
    try:
        return Ended.model_validate(message) if "ended" in message else Told.model_validate(message)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, wrong["loc"]))
        raise TransportError(f"the device sent a message whose {where} is wrong: {wrong['msg']}") from error
