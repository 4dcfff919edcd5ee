"""What a training sees of an image beside the image itself: policies by name, drawn for each image.

`affine` and `flip` change a batch that is ready for the network. The policies of
`PIXELS` change images as a camera has them, uint8 before normalisation, by
torchvision's transforms v2. Those draw once for a whole batch, so each image is
given to them alone, with random numbers that the seed, the epoch and the image's
index decide: the order, the batch and what came before an interruption do not.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgebench.errors import InputError, MissingExtra
from edgebench.recipes import _volumes

Images = NDArray[np.uint8]
PIXELS = ("light", "medical")
"""Policies that change pixels before they are normalised."""
TILES = 4
"""Contextual regions of CLAHE along each side."""
CLIP = 0.01
"""Of a region's pixels, how many may be of one grey level before they are dealt out to all (K. Zuiderveld 1994)."""
HOLES = 4
"""Rectangles of coarse dropout at most (T. DeVries, G. Taylor 2017)."""


def shifted(images: Tensor, kind: str) -> Tensor:
    """Shift, turn and scale a little (`affine`), also mirror (`flip`); leave as is for any other policy.

    images: float32 [n, c, h, w], or volumes [n, c, d, h, w]. Each has random numbers of its own, torch's next ones.
    """
    if kind not in ("affine", "flip"):
        return images
    if images.ndim == 5:
        return _volumes.augmented(images, kind)
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(30)
    scale = 1 + (torch.rand(count) - 0.5) * 0.2
    mirror = 1 - 2 * (torch.rand(count) < 0.5).float() if kind == "flip" else torch.ones(count)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos() * scale * mirror, -angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin() * mirror, angle.cos() * scale
    matrix[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.2
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False).to(images.device)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def augmentation(name: str, seed: int, epoch: Callable[[], int], images: Images) -> Augmentation | None:
    """Make what changes the pixels of a training split; None where the policy changes none.

    `InputError` where the split's images are volumes, `MissingExtra` where what computes CLAHE is not installed.
    """
    if name not in PIXELS:
        return None
    if images.ndim != 4:
        raise InputError(f"augment {name}: is for images, and these are volumes; choose none, affine or flip")
    if name == "medical" and importlib.util.find_spec("skimage") is None:
        raise MissingExtra("the augmentation medical", "torch", "skimage")
    return Augmentation(name, seed, epoch)


class Augmentation:
    """A policy of `PIXELS`, at work on a training split."""

    def __init__(self, name: str, seed: int, epoch: Callable[[], int]) -> None:
        """Take a policy's name, the training's seed, and what tells the epoch that is being trained."""
        self._name, self._seed, self._epoch = name, seed, epoch
        self._seen: tuple[int, Counter[int]] = (-1, Counter())

    def __call__(self, images: Images, indices: Sequence[int]) -> Images:
        """Change images [n, h, w, c], whose indices in the split are told; each as if it were alone."""
        change = policy(self._name, *images.shape[1:3])
        before = torch.get_rng_state()
        try:
            return np.stack([_alone(change, image, self._number(index)) for image, index in zip(images, indices, strict=True)])
        finally:
            torch.set_rng_state(before)

    def _number(self, index: int) -> int:
        """Return what an image's random numbers begin with; one that a sampler gives again in an epoch gets others."""
        epoch = self._epoch()
        if self._seen[0] != epoch:
            self._seen = (epoch, Counter())
        seen = self._seen[1]
        seen[index] += 1
        return number(self._seed, epoch, index, seen[index] - 1)


def number(seed: int, epoch: int, index: int, again: int = 0) -> int:
    """Return the seed of torch's generator for an image in an epoch; again: how often the epoch had it before."""
    return int(np.random.SeedSequence([seed, epoch, index, again]).generate_state(1, np.uint64)[0])


def _alone(change: Callable[[Tensor], Tensor], image: Images, seed: int) -> Images:
    torch.default_generator.manual_seed(seed)
    changed = change(torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")))
    return changed.numpy().transpose(1, 2, 0)


@cache
def policy(name: str, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """Return a policy for images of a size: uint8 [c, h, w] → the same, by torch's default generator."""
    from torchvision.transforms import v2

    if name == "light":
        step = max(1, round(max(height, width) / 20))
        moved = [*_turned(5, height + 2 * step, width + 2 * step, step), v2.RandomCrop((height, width))]
        light: Callable[[Tensor], Tensor] = v2.Compose([*moved, v2.ColorJitter(brightness=0.1, contrast=0.1)])
        return light
    medical: Callable[[Tensor], Tensor] = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            *_turned(15, height, width),
            v2.RandomApply([v2.Lambda(equalized)], p=0.2),
            v2.ColorJitter(brightness=0.2, contrast=0.2),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.0))], p=0.2),
            v2.RandomApply([v2.GaussianNoise(sigma=0.03)], p=0.3),
            *[v2.RandomErasing(p=0.25, scale=(0.005, 0.03), ratio=(0.5, 2.0))] * HOLES,
        ]
    )
    return medical


def _turned(degrees: int, height: int, width: int, wider: int = 0) -> list[Any]:
    """Turn by up to so many degrees; what comes in from outside is as the nearest edge. The result has this size."""
    from torchvision.transforms import InterpolationMode, v2

    margin = wider + math.ceil(math.sin(math.radians(degrees)) * max(height, width) / 2)
    turn = v2.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR)
    return [v2.Pad(margin, padding_mode="edge"), turn, v2.CenterCrop((height, width))]


def equalized(image: Tensor) -> Tensor:
    """Equalize the histogram of each region within limits (CLAHE), by scikit-image: uint8 [c, h, w] → the same.

    Of colours, their value in HSV. K. Zuiderveld, "Contrast limited adaptive histogram equalization", 1994.
    """
    from skimage.exposure import equalize_adapthist

    pixels = image.numpy().transpose(1, 2, 0)
    pixels = pixels[:, :, 0] if len(image) == 1 else pixels
    regions = [math.ceil(side / TILES) for side in image.shape[1:]]
    found = equalize_adapthist(pixels, kernel_size=regions, clip_limit=CLIP)
    whole = (255 * found + 0.5).astype(np.uint8).reshape(*image.shape[1:], len(image))
    return torch.from_numpy(whole.transpose(2, 0, 1).copy())
