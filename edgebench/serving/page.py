"""The page on which one drops a picture: one document that loads nothing but what this server answers."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

WEB = Path(__file__).with_name("web")


@dataclass(frozen=True)
class Page:
    """A document, and what a browser may do with it."""

    content: bytes
    policy: str


def page() -> Page:
    """Put the page together; its own program and style are allowed by their hashes, and nothing from anywhere else."""
    html, script, style = ((WEB / f"page.{end}").read_text(encoding="utf-8") for end in ("html", "js", "css"))
    content = html.replace("/* style */", style).replace("/* program */", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(content.encode(), policy)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
