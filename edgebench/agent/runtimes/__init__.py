"""One file per runtime, `rt_<name>.py`, and what they share; a target's own are packed beside them."""

from ..plugins import as_when_flat

as_when_flat(__name__)
