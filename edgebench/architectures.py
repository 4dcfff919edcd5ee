"""Names of torchvision's classifiers, and of the stems that they can have; imports no torch."""

from __future__ import annotations

ARCHITECTURES = (
    "alexnet",
    *(f"convnext_{size}" for size in ("base", "large", "small", "tiny")),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{number}" for number in range(8)),
    *("efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s"),
    *("googlenet", "inception_v3", "maxvit_t"),
    *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"regnet_x_{size}" for size in ("16gf", "1_6gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
    *(f"regnet_y_{size}" for size in ("128gf", "16gf", "1_6gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
    *("resnet101", "resnet152", "resnet18", "resnet34", "resnet50"),
    *("resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d"),
    *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    *("squeezenet1_0", "squeezenet1_1"),
    *(f"swin{version}_{size}" for version in ("", "_v2") for size in ("b", "s", "t")),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"),
    *("wide_resnet101_2", "wide_resnet50_2"),
)
"""Torchvision's classifiers that can be built; a list, so that printing it imports no torch."""
SCRATCH = ("cnn2d", "cnn3d", "resnet2d", "resnet3d")
"""Networks of our own, in two and three dimensions."""
VIDEO = ("r3d_18",)
"""Torchvision's, that take volumes."""
VOLUMES = ("cnn3d", "resnet3d", *VIDEO)
"""All that take volumes."""
STOCK, SMALL = "stock", "small"
"""Stems that a name may end in: torchvision's own at every size, or that for small images, which does not shrink at once."""


def split_stem(architecture: str) -> tuple[str, str | None]:
    """Take `mobilenet_v2:stock` apart; no stem where none is named: that for small images below 64 pixels."""
    name, _, stem = architecture.partition(":")
    return name, stem or None


def is_listed(architecture: str) -> bool:
    """Return whether a name is one of torchvision's, with or without a stem."""
    name, stem = split_stem(architecture)
    return name in ARCHITECTURES and stem in (None, STOCK, SMALL)
