"""A language model answers prompts: its speed by tokens, and exact matches; nothing is classified."""

from __future__ import annotations

LIKE = "none"
GENERATES = True
