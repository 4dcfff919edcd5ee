"""What a server can be asked for; each option stands here once, with its default."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebench.errors import InputError

LOOPBACK = "127.0.0.1"
KEY = "EDGEBENCH_API_KEY"
"""The variable of the environment that holds the key; a key on the command line is seen by everybody on the computer."""
LEAST_KEY = 16


@dataclass(frozen=True)
class ServeOptions:
    """Where a bundle is served, to whom, and within which limits."""

    host: str = LOOPBACK
    port: int = 8000
    """0: any that is free."""
    workers: int = 1
    """Processes, each with the model; connections are dealt out among them."""
    threads: int | None = None
    """Of one inference; the cores, shared among the workers, unless given."""
    key: str | None = field(default=None, repr=False)
    """What clients must show; None: nothing."""
    open: bool = False
    """Whether another address than this computer's own may be served without a key."""
    names: tuple[str, ...] = ()
    """Host names that the server answers to, beside its own on loopback; on another address any, unless given."""
    origins: tuple[str, ...] = ()
    """Pages elsewhere that may ask (CORS)."""
    certificate: Path | None = None
    private_key: Path | None = field(default=None, repr=False)
    """Both: TLS."""
    max_bytes: int = 8 << 20
    """Of a request's body."""
    max_pixels: int = 1 << 23
    """Of one picture."""
    max_files: int = 32
    """In one batch request."""
    batch: int = 8
    """Pictures that are inferred together at most, where the file takes any batch."""
    wait_ms: float = 2.0
    """So long a picture waits for others to be inferred with, at most, and only while others are on their way."""
    queue: int = 64
    """Pictures that are being worked on or wait, in one process; more are refused."""
    per_client: int = 0
    """Requests of one address that are being answered; 0: as many as there are."""
    timeout_seconds: float = 10.0
    """In which a request must have come in whole, and in which a picture must have been inferred."""
    explain_seconds: float = 60.0
    """In which a heat map must be made."""
    grace_seconds: float = 10.0
    """So long requests may take to finish once the server is to stop."""
    head: str | None = None
    """What scores are, logits, softmax or sigmoid; looked at unless given."""
    trust: bool = False
    """Whether programs of others are loaded as they are."""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    """The runtime's own options."""

    @property
    def local(self) -> bool:
        """Return whether only this computer can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def scheme(self) -> str:
        """Return https where there is a certificate."""
        return "http" if self.certificate is None else "https"

    def check(self) -> None:
        """Refuse what does not fit together; `InputError` says what to do."""
        if self.key is None and not self.local and not self.open:
            raise InputError(
                f"--host {self.host}: others could reach it without a key; set {KEY} or give --api-key-file, "
                "or say --open if anybody may"
            )
        if self.key is not None and (len(self.key) < LEAST_KEY or not self.key.isascii() or not self.key.isprintable()):
            raise InputError(f"the API key: wants {LEAST_KEY} printable ASCII characters or more")
        for name in ("workers", "max_bytes", "max_pixels", "max_files", "batch", "queue"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: is 1 or more")
        for name in ("timeout_seconds", "explain_seconds", "grace_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name.replace('_seconds', '')} {getattr(self, name)}: is more than 0")
        if self.wait_ms < 0 or self.per_client < 0:
            raise InputError("--wait-ms and --per-client: are 0 or more")
        self._check_origins()
        self._check_certificate()

    def _check_origins(self) -> None:
        for each in self.origins:
            scheme, _, rest = each.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest:
                raise InputError(f"--cors-origin {each}: wants an origin, for instance https://viewer.example")

    def _check_certificate(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InputError("--tls-certificate and --tls-key: give both or neither")
        if self.certificate is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                    self.certificate, self.private_key, _no_password
                )
            except (OSError, ssl.SSLError, ValueError) as error:
                raise InputError(f"{self.certificate}: no certificate with its key ({error}); give PEM files") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; a server has nobody to ask")
