"""Torchvision's classifiers, for any class count, 1 or 3 channels, and small images."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from edgebench.architectures import SMALL
from edgebench.data._torchvision import load_torchvision
from edgebench.errors import InputError, ModelWarning
from edgebench.models.outputs import ONLY, Pick

BELOW = 64
"""Below this many pixels a network gets a stem that does not shrink at once."""


def build(name: str, classes: int, channels: int, size: int, pretrained: bool, stem: str | None = None) -> nn.Module:
    """Build a network for images [n, channels, size, size] that returns logits [n, classes].

    `stem`: `stock`, torchvision's own, or `small`, that for small images; None: as the size has it.
    """
    tv = load_torchvision()
    fit = next((FITS[family] for family in FITS if name.startswith(family)), _any)
    network: nn.Module = fit(tv, name, classes, size, size < BELOW if stem is None else stem == SMALL)
    if getattr(network, "aux_logits", False):
        network.register_forward_hook(Pick(ONLY))  # scores alone in training too
    first, layer = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if channels != layer.in_channels:
        _replace(network, first, _convolution(layer, in_channels=channels))
    if pretrained:
        _pretrain(tv, name, network, first)
    return network


def _plain(tv: Any, name: str, classes: int) -> Any:
    return tv.models.get_model(name, weights=None, num_classes=classes)


def _any(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Take a network as torchvision builds it."""
    return _plain(tv, name, classes)


def _auxiliary(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Say how weights are drawn, which torchvision warns about where nobody does."""
    return tv.models.get_model(name, weights=None, num_classes=classes, init_weights=True)


def _maxvit(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Build for this image size, which is part of the network."""
    try:
        return tv.models.get_model(name, weights=None, num_classes=classes, input_size=(size, size))
    except ValueError as error:
        what = str(error).splitlines()[0].rstrip(". ")
        raise InputError(
            f"{name}: an image size of {size} does not fit it: {what}; choose another size, for instance 224"
        ) from error


def _resnet(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Small images: a 3 × 3 stem without stride or pooling (He et al. 2016, section 4.2)."""
    network = _plain(tv, name, classes)
    if small:
        network.conv1 = _convolution(network.conv1, kernel_size=3, stride=1, padding=1)
        network.maxpool = nn.Identity()
    return network


def _mobile(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Small images: the first convolution keeps its resolution (MobileNet and EfficientNet families)."""
    network = _plain(tv, name, classes)
    if small:
        network.features[0][0] = _convolution(network.features[0][0], stride=1)
    return network


def _densenet(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Small images: the 3 × 3 stem of the CIFAR networks (Huang et al. 2017, section 3)."""
    network = _plain(tv, name, classes)
    if small:
        network.features.conv0 = _convolution(network.features.conv0, kernel_size=3, stride=1, padding=1)
        network.features.pool0 = nn.Identity()
    return network


def _vgg(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Small images: the first poolings are left out until one pixel remains for the last."""
    network = _plain(tv, name, classes)
    pools = [index for index, layer in enumerate(network.features) if isinstance(layer, nn.MaxPool2d)]
    if small:
        for index in pools[: max(0, len(pools) - (size.bit_length() - 1))]:
            network.features[index] = nn.Identity()
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier[0] = nn.Linear(512, 4096)
    return network


def _vit(tv: Any, name: str, classes: int, size: int, small: bool) -> Any:
    """Build for this image size, which is part of the network; small images get patches of 4 pixels."""
    network = tv.models.get_model(name, weights=None, num_classes=classes)
    patch = 4 if small else network.patch_size
    if size % patch:
        raise InputError(f"{name}: an image size of {size} is no multiple of its {patch}-pixel patches; choose another size")
    first = network.encoder.layers[0]
    return tv.models.VisionTransformer(
        image_size=size,
        patch_size=patch,
        num_layers=len(network.encoder.layers),
        num_heads=first.num_heads,
        hidden_dim=network.hidden_dim,
        mlp_dim=network.mlp_dim,
        num_classes=classes,
    )


FITS = {
    "googlenet": _auxiliary,
    "inception": _auxiliary,
    "maxvit": _maxvit,
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "mobilenet": _mobile,
    "efficientnet": _mobile,
    "densenet": _densenet,
    "vgg": _vgg,
    "vit": _vit,
}


def has_small_stem(name: str) -> bool:
    """Return whether there is a network of this name whose stem is made for small images."""
    fit = next((FITS[family] for family in FITS if name.startswith(family)), _any)
    return fit in (_resnet, _mobile, _densenet, _vgg, _vit)


def _convolution(layer: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """Make the same convolution with some of its settings changed, freshly initialised."""
    settings = {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "bias": layer.bias is not None,
    }
    made = nn.Conv2d(**{**settings, **changes})
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, layer)


def _pretrain(tv: Any, name: str, network: nn.Module, first: str) -> None:
    """Fill in torchvision's published weights; layers of another shape keep their random ones, a stem's with a warning."""
    try:
        weights = tv.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name}: pretrained weights could not be downloaded ({error}); go online once, or give --checkpoint"
        ) from error
    own = network.state_dict()
    stem = f"{first}.weight"
    if own[stem].shape[1] == 1:
        weights[stem] = weights[stem].sum(dim=1, keepdim=True)
    other = [key for key in own if key in weights and own[key].ndim == 4 and own[key].shape != weights[key].shape]
    if other:
        what = f"{other[0]} has another shape than in the published weights, and begins at random"
        warnings.warn(f"{name}: {what}; {name}:stock has torchvision's own stem", ModelWarning, stacklevel=2)
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    network.load_state_dict(fitting, strict=False)
