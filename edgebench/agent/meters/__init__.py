"""One file per power meter, `meter_<name>.py`, and what reads them; a target's own are packed beside them."""

from ..plugins import as_when_flat

as_when_flat(__name__)
