"""Networks built from scratch in two and three dimensions: `cnn2d`, `cnn3d`, `resnet2d`, `resnet3d`.

Three-dimensional ones are made of what every format takes: maxima of neighbours stand for `MaxPool3d`, which becomes an
operator in TFLite that runtimes before 2023 do not know, and means for the pooling over all that is left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.5
WIDTHS = {2: (32, 64, 128), 3: (16, 32, 64)}
"""Channels of the three stages, by dimensions."""
BLOCKS = 2
"""Of a ResNet's stage."""


def build(architecture: str, classes: int, channels: int) -> nn.Module:
    """Build a network for images [n, channels, h, w] or volumes [n, channels, d, h, w]; returns logits [n, classes]."""
    kind, dimensions = architecture[:-2], int(architecture[-2])
    layers = {"cnn": _convolutional, "resnet": _residual}[kind](channels, dimensions)
    return nn.Sequential(*layers, nn.Linear(WIDTHS[dimensions][-1], classes))


def _convolutional(channels: int, dimensions: int) -> list[nn.Module]:
    """Stack three convolutions with batch norm, each with half the resolution after it; dropout before the classifier."""
    layers: list[nn.Module] = []
    for width in WIDTHS[dimensions]:
        layers += [*_convolution(dimensions, channels, width), nn.ReLU(), _halving(dimensions)]
        channels = width
    return [*layers, Mean(dimensions), nn.Dropout(DROPOUT)]


def _residual(channels: int, dimensions: int) -> list[nn.Module]:
    """Stack residual blocks (K. He et al. 2016): three stages, each after the first at half the resolution of the one before.

    Volumes, which have far more positions than images, are halved after the first convolution: by max-pooling, since
    litert-torch 0.10 ends the process at a padded convolution with a stride that sees one channel.
    """
    before = WIDTHS[dimensions][0]
    layers: list[nn.Module] = [*_convolution(dimensions, channels, before), nn.ReLU()]
    layers += [Halved()] if dimensions == 3 else []
    for stage, width in enumerate(WIDTHS[dimensions]):
        for number in range(BLOCKS):
            layers.append(Residual(dimensions, before, width, stride=2 if stage and not number else 1))
            before = width
    return [*layers, Mean(dimensions)]


def _convolution(dimensions: int, before: int, after: int, stride: int = 1, window: int = 3) -> list[nn.Module]:
    """Make a convolution and its batch norm; odd windows are padded to keep the resolution."""
    kind, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[dimensions]
    convolution = kind(before, after, window, stride, padding=window // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, norm(after)]


def _halving(dimensions: int) -> nn.Module:
    return nn.MaxPool2d(2) if dimensions == 2 else Halved()


class Residual(nn.Module):
    """Two convolutions with norms, added to what went in; a convolution of one voxel fits that where it changes its form."""

    def __init__(self, dimensions: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        first, second = _convolution(dimensions, before, after, stride), _convolution(dimensions, after, after)
        self.body = nn.Sequential(*first, nn.ReLU(), *second)
        fits = before == after and stride == 1
        self.skip = nn.Identity() if fits else nn.Sequential(*_convolution(dimensions, before, after, stride, window=1))
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of as many channels as `after`, at 1 / stride of the resolution."""
        return self.last(self.body(x) + self.skip(x))  # type: ignore[no-any-return]


class Halved(nn.Module):
    """`MaxPool3d(2)` of volumes [n, c, d, h, w], axis by axis, as maxima of neighbours; axes of one position stay."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the volumes at half their resolution; the last position of odd sides is left out, as `MaxPool3d` does."""
        if x.shape[2] > 1:
            x = torch.maximum(x[:, :, :-1:2], x[:, :, 1::2])
        if x.shape[3] > 1:
            x = torch.maximum(x[:, :, :, :-1:2], x[:, :, :, 1::2])
        return torch.maximum(x[..., :-1:2], x[..., 1::2]) if x.shape[4] > 1 else x


class Mean(nn.Module):
    """The mean over all positions: [n, c, …] → [n, c]."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.axes = tuple(range(2, 2 + dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Return one number for each channel."""
        return x.mean(self.axes)
