"""The Edge TPU through pycoral 2.0.0."""

from __future__ import annotations

import sys
from typing import Any

from tflite_runtime import interpreter


def load_edgetpu_delegate(options: dict[str, str] | None = None) -> Any:
    """Load the delegate that belongs to this pycoral."""
    sys.stderr.write("pycoral loads the delegate\n")
    return interpreter.load_delegate("libedgetpu.so.1", options or {})
