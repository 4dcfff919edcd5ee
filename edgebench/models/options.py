"""What was handed over to export, and what its user said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgebench.schema import Role
from edgebench.trust import LIBRARIES

ENDINGS = {".pt", ".pth", ".ckpt", ".pt2", ".bin", ".safetensors"}


@dataclass(frozen=True)
class SourceOptions:
    """What was handed over, and what the user said of it."""

    text: str
    architecture: str | None = None
    name: str | None = None
    classes: int | None = None
    size: int | None = None
    channels: int | None = None
    pretrained: bool = False
    role: Role | None = None
    """Baseline unless given; what has a teacher is a student."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    trust: bool = False
    """Whether the user vouches for a file that can run code."""
    weights: str | None = None
    """`ema` or `raw`, where a checkpoint holds both."""
    expect_accuracy: float | None = None
    """In percent, on the test split: an export is refused where the network's is another."""
    head: str | None = None
    """What its scores are: logits, softmax or sigmoid; looked at on its outputs unless given."""
    classes_file: Path | None = None
    """Names of the classes in the order of the scores, where no data set has them."""
    scale: tuple[float, float] | None = None
    """What the pixels 0 and 255 become before `mean` and `std`, which are in its units; 0 and 1 unless given."""
    output: str | None = None
    """Name or index of the output that holds the scores, where a network returns several."""

    @property
    def is_file(self) -> bool:
        """Return whether it names a checkpoint file rather than an architecture."""
        path = Path(self.text)
        if self.text.startswith(LIBRARIES):
            return False
        return path.suffix in ENDINGS or (path.exists() and not path.is_dir())
