"""Check once more whatever the other side names."""

import os
import re

from .messages import Refused, reason_of


def root_folder(path: str) -> str:
    """Find the cache folder, and make it where it is not there."""
    root = os.path.expanduser(path)
    if not os.path.isabs(root) or "\0" in root or ".." in root.split("/"):
        raise Refused("failed", "%r is no folder that a cache could be in" % path)
    if not os.path.isdir(root):
        try:
            os.makedirs(root)
            os.chmod(root, 0o700)
        except OSError as error:
            kind, text = reason_of(error)
            raise Refused(kind, "%s: %s" % (root, text)) from error
    return os.path.realpath(root)


def inside(root: str, name: str) -> str:
    """Join a name from the other side; it stays below the root, and follows no link out of it."""
    if not isinstance(name, str) or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Refused("failed", "%r is no name below the cache folder" % (name,))
    path = os.path.join(root, name)
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise Refused("failed", "%r leads out of the cache folder" % name)
    return path


def hexadecimal(text: str) -> str:
    """Return a hash, or a part of one that names something."""
    if not isinstance(text, str) or not re.match(r"[0-9a-f]{8,64}\Z", text):
        raise Refused("failed", "%r is no hash" % (text,))
    return text


def whole(number: int) -> int:
    """Return a number of bytes."""
    if not isinstance(number, int) or number < 0:
        raise Refused("failed", "%r is no number of bytes" % (number,))
    return number
