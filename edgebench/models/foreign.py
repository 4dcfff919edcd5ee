"""Files that hold neither weights of torch nor a network that is measured as it is: told by their content, with what to do."""

from __future__ import annotations

from collections.abc import Sequence

TO_ONNX = "convert it with tf2onnx, or to TFLite with tf.lite.TFLiteConverter"
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "is a Keras file (HDF5), which needs TensorFlow", TO_ONNX),
    (b"GGUF", "is a language model of llama.cpp", "`edgebench run FILE.gguf` measures it, see docs/generation.md"),
)
"""How files begin that no format takes, what they are, and what to do."""


def foreign(head: bytes, members: Sequence[str]) -> tuple[str, str] | None:
    """Say what a file is by its beginning and, of an archive, its members, and what to do; None where it is none of these."""
    for beginning, what, advice in BEGINNINGS:
        if head.startswith(beginning):
            return what, advice
    if "config.json" in members and any(name.endswith(".weights.h5") for name in members):
        return "is a Keras file, which needs TensorFlow", TO_ONNX
    return None
