"""Nothing is judged: latency, memory, size and energy alone."""

from __future__ import annotations

HEADLINE = ""
