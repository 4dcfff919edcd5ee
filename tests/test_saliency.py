"""Methods of explaining against captum, against exact values, and against derivatives by autograd; figures against references."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import auc

from edgebench import models
from edgebench.analysis import saliency
from edgebench.errors import InputError, UnknownName
from edgebench.explain import _cells, _layers, load
from edgebench.schema import Preprocessing

SPEC = Preprocessing(height=16, width=16, channels=1, mean=(128 / 255,), std=(0.25,))


def small(classes: int = 3) -> torch.nn.Sequential:
    """Make a network of convolutions with random weights, whose map before the pooling is 4 × 4; piecewise linear."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(6, 5, 3, stride=2, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(5, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4, classes),
    ).eval()


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def explained(method: str, net: Any, inputs: torch.Tensor, classes: list[int], **settings: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = load(method).explain(SimpleNamespace(module=net), inputs, classes, settings)
    return found


def alike(one: Any, other: Any) -> float:
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("layer", ["3", "6"])
def test_grad_cam_is_captums(layer: str) -> None:
    from captum.attr import LayerGradCam

    net, inputs, classes = small(), images(), [0, 1, 2, 0]
    ours = explained("grad-cam", net, inputs, classes, layer=layer)
    theirs = LayerGradCam(net, net[int(layer)]).attribute(inputs, torch.tensor(classes), relu_attributions=True)
    shown = [index for index in range(4) if ours[index].max() > 0]
    assert len(shown) >= 2
    for index in shown:
        assert alike(ours[index], theirs[index, 0].detach()) > 0.999
    assert not theirs[[index for index in range(4) if index not in shown]].any()


def higher_derivatives(net: torch.nn.Sequential, split: int, inputs: torch.Tensor, wanted: int) -> Any:
    """Compute Grad-CAM++ from its definition: derivatives of exp(score) by each place of a map, by autograd alone."""
    maps = net[:split](inputs).detach().requires_grad_(True)
    value = net[split:](maps)[0, wanted].exp()
    [first] = torch.autograd.grad(value, maps, create_graph=True)
    second, third = torch.zeros_like(maps), torch.zeros_like(maps)
    for place in itertools.product(*map(range, maps.shape)):
        [row] = torch.autograd.grad(first[place], maps, create_graph=True)
        second[place] = row[place].detach()
        third[place] = torch.autograd.grad(row[place], maps, retain_graph=True)[0][place]
    below = 2 * second + (maps.detach().sum(dim=(2, 3), keepdim=True) * third)
    share = torch.where(second != 0, second / below, torch.zeros_like(below))
    score = net[split:](maps)[0, wanted]
    [gradient] = torch.autograd.grad(score, maps)
    weights = (share * gradient.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    return (weights * maps.detach()).sum(dim=1).clamp(min=0)[0]


def test_grad_cam_plus_plus_is_what_its_paper_defines_by_higher_derivatives() -> None:
    net, compared = small(), 0
    for index, wanted in itertools.product(range(2), range(3)):
        inputs = images()[index : index + 1]
        ours = explained("grad-cam++", net, inputs, [wanted], layer="6")[0]
        theirs = higher_derivatives(net, 7, inputs, wanted)
        assert (ours.max() > 0) == bool(theirs.max() > 0)
        if ours.max() > 0:
            assert alike(ours, theirs) > 0.999
            compared += 1
    assert compared >= 2


def test_integrated_gradients_add_up_to_the_difference_of_the_scores() -> None:
    net, inputs = small(), images(2)
    found = explained("integrated-gradients", net, inputs, [2, 1])
    scores, none = net(inputs).detach(), net(torch.zeros_like(inputs)).detach()
    assert found.shape == (2, 16, 16)
    for index, wanted in enumerate([2, 1]):
        between = float(scores[index, wanted] - none[index, wanted])
        assert found[index].sum() == pytest.approx(between, abs=0.05 * abs(between) + 1e-3)


def test_of_mobilenet_at_32_pixels_the_last_layer_with_4_by_4_cells_is_taken() -> None:
    net = models.build("mobilenet_v2", 10, 3, 32).eval()
    taken = _layers.take(net, torch.randn(1, 3, 32, 32), 0)
    assert (taken.layer, taken.activation.shape[-2:]) == ("features.13", (4, 4))


def transformer() -> Any:
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5).eval()
    torch.nn.init.normal_(net.heads.head.weight)
    return net


def test_of_a_vision_transformer_tokens_become_a_map_and_the_last_ones_with_a_gradient_are_taken() -> None:
    net, inputs = transformer(), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    taken = _layers.take(net, inputs, 3)
    assert taken.layer == "encoder.layers.encoder_layer_1.ln_1"
    tokens = torch.cat([net.class_token, net._process_input(inputs)], dim=1) + net.encoder.pos_embedding
    first, last = net.encoder.layers
    before = first(tokens)
    z = last.ln_1(before).detach().requires_grad_(True)
    mixed = last.self_attention(z, z, z, need_weights=False)[0] + before
    ended = net.encoder.ln(mixed + last.mlp(last.ln_2(mixed)))
    [gradient] = torch.autograd.grad(net.heads(ended[:, 0])[0, 3], z)
    weights = gradient[0, 1:].mean(dim=0)
    by_hand = (z[0, 1:] @ weights).clamp(min=0).reshape(4, 4)
    assert by_hand.max() > 0
    assert alike(explained("grad-cam", net, inputs, [3])[0], by_hand.detach()) > 0.999


class Branches(torch.nn.Module):
    """Returns maps with the channels last, and attention that is square."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.attention, self.head = torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> Any:
        maps = self.maps(inputs.permute(0, 2, 3, 1))
        flat = maps.flatten(1, 2)
        attention = self.attention((flat @ flat.transpose(1, 2))[:, None])
        return self.head((attention[:, 0] @ flat).mean(dim=1))


def test_channels_may_come_last() -> None:
    taken = _layers.take(Branches(), torch.randn(1, 3, 6, 6), 1, "maps")
    assert taken.activation.shape == (1, 3, 6, 6)


def test_a_layer_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UnknownName, match=r"unknown layer '99'.*known: 0, 1"):
        _layers.take(small(), images(1), 0, "99")
    with pytest.raises(InputError, match="no layer of this network returns maps"):
        _layers.take(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2)), images(1), 0)


# ---------------------------------------------------------------- scores


Scores = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def scorer(net: Any, wanted: int) -> Scores:
    def scores(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            return np.asarray(net((pixels / 255 - SPEC.mean[0]) / SPEC.std[0])[:, wanted].double())

    return scores


def by_scores(method: str, grid: int, scores: Scores, evaluations: int = 0, seed: int = 0) -> NDArray[np.float64]:
    """Explain one image of noise by a method."""
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 1), np.uint8)
    plugin, cells = load(method), _cells.divided((16, 16, 1), SPEC, grid)
    masks = plugin.masks(cells.count, evaluations, np.random.default_rng(seed))
    found = plugin.attribute(masks, scores(cells.covered(image, masks))[None], scores(image[None]))
    return np.asarray(found).reshape(cells.grid)


def test_occlusion_is_captums() -> None:
    from captum.attr import Occlusion

    net = small()
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 1), np.uint8)
    inputs = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - SPEC.mean[0]) / SPEC.std[0]
    theirs = Occlusion(net).attribute(inputs, (1, 4, 4), strides=(1, 4, 4), target=2, baselines=0.0)
    ours = by_scores("occlusion", 4, scorer(net, 2))
    assert ours == pytest.approx(theirs[0, 0, ::4, ::4].detach().numpy(), abs=1e-5)


def shapley(grid: int, scores: Scores) -> NDArray[np.float64]:
    """Compute Shapley values from their definition."""
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 1), np.uint8)
    cells = _cells.divided((16, 16, 1), SPEC, grid)
    count = cells.count
    masks = np.array(list(itertools.product((False, True), repeat=count)))
    values = dict(zip(map(tuple, masks.tolist()), scores(cells.covered(image, masks)), strict=True))
    found = np.zeros(count)
    for mask, value in values.items():
        for cell in range(count):
            if not mask[cell]:
                size, more = sum(mask), (*mask[:cell], True, *mask[cell + 1 :])
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                found[cell] += weight * (values[more] - value)
    return found.reshape(cells.grid)


def test_kernel_shap_of_all_masks_is_exact_and_of_some_is_near() -> None:
    scores = scorer(small(), 1)
    assert by_scores("kernel-shap", 2, scores, 16) == pytest.approx(shapley(2, scores), abs=1e-6)
    exact = shapley(3, scores)
    some = by_scores("kernel-shap", 3, scores, 300)
    assert alike(some, exact) > 0.98
    assert some.sum() == pytest.approx(exact.sum(), abs=1e-9)


def test_lime_is_its_weighted_ridge_regression() -> None:
    scores, grid, count = scorer(small(), 0), 3, 200
    ours = by_scores("lime", grid, scores, count)
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 1), np.uint8)
    cells = _cells.divided((16, 16, 1), SPEC, grid)
    masks = load("lime").masks(cells.count, count, np.random.default_rng(0))
    distance = [1 - float(np.dot(m, np.ones(9)) / max(np.linalg.norm(m) * 3, 1e-12)) for m in masks.astype(float)]
    weights = np.exp(-(np.array(distance) ** 2) / 0.25**2)
    design = np.column_stack([masks.astype(float), np.ones(count)])
    penalty = np.diag([1.0] * 9 + [0.0])
    right = design.T @ (weights * scores(cells.covered(image, masks)))
    wanted = np.linalg.solve(design.T @ (weights[:, None] * design) + penalty, right)
    assert ours.ravel() == pytest.approx(wanted[:9], abs=1e-6)


def test_a_method_that_there_is_not_is_answered_with_those_that_there_are() -> None:
    known = "grad-cam, grad-cam\\+\\+, integrated-gradients, kernel-shap, lime, occlusion"
    with pytest.raises(UnknownName, match=f"unknown method 'grad-cam-plus-plus'.*known: {known}"):
        load("grad-cam-plus-plus")


# ---------------------------------------------------------------- cells


@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
def test_covered_cells_hold_the_baseline_and_shown_ones_the_image(baseline: str) -> None:
    image = np.random.default_rng(0).integers(1, 256, (9, 7, 3), np.uint8)
    spec = SPEC.model_copy(update={"mean": (0.2, 0.4, 0.6), "std": (0.2,) * 3, "channels": 3})
    cells = _cells.divided(image.shape, spec, 3, baseline)
    shown = np.zeros((1, 9), bool)
    shown[0, 4] = True
    [found] = cells.covered(image, shown)
    inside = np.zeros((9, 7), bool)
    inside[3:6, 3:5] = True  # of seven columns the middle third
    assert (found[inside] == image[inside]).all()
    outside = found[~inside]
    if baseline == "blur":
        assert (outside != image[~inside]).any()
    else:
        assert (outside == {"mean": (51, 102, 153), "black": (0, 0, 0)}[baseline]).all()
    assert (cells.covered(image, np.ones((1, 9), bool))[0] == image).all()


def test_maps_come_to_the_cells_by_means_or_in_between() -> None:
    cells = _cells.divided((16, 16, 1), SPEC, 4)
    fine = np.arange(256.0).reshape(16, 16)
    assert cells.of_map(fine)[1, 2] == fine[4:8, 8:12].mean()
    coarse = cells.of_map(np.array([[0.0, 4.0], [8.0, 12.0]]))
    assert coarse[0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert coarse[:, 0].tolist() == [0.0, 2.0, 6.0, 8.0]


def test_too_few_cells_are_refused_and_small_images_have_as_many_as_pixels() -> None:
    assert _cells.divided((5, 16, 1), SPEC, 8).grid == (5, 8)
    with pytest.raises(InputError, match="--cells 1"):
        _cells.divided((16, 16, 1), SPEC, 1)
    with pytest.raises(InputError, match="--baseline white: is one of mean, black, blur"):
        _cells.divided((16, 16, 1), SPEC, 4, "white")


# ---------------------------------------------------------------- figures


def test_rank_correlation_is_scipys_with_ties_too() -> None:
    random = np.random.default_rng(0)
    tied = random.integers(0, 3, (4, 4)).astype(np.float64)
    for one, other in [(random.random((5, 5)), random.random((5, 5))), (tied, np.eye(4))]:
        assert saliency.correlation(one, other) == pytest.approx(float(spearmanr(one.ravel(), other.ravel()).statistic))
    assert saliency.correlation(np.ones((3, 3)), random.random((3, 3))) is None


def test_overlap_is_of_the_highest_tenth() -> None:
    one, other = np.zeros(30), np.zeros(30)
    one[[1, 2, 3]], other[[2, 3, 4]] = (3, 2, 1), (1, 2, 3)
    assert saliency.overlap(one, other) == 2 / 4
    assert saliency.overlap(one, one) == 1.0


def test_a_map_that_became_flat_counts_as_0_and_a_flat_reference_is_left_out() -> None:
    random = np.random.default_rng(0)
    maps = random.random((3, 4, 4))
    others = maps.copy()
    others[0] = 5.0
    maps[1] = 0.0
    found = saliency.compare(maps, others)
    assert list(found.correlations) == [0.0, None, pytest.approx(1.0)]
    assert (found.lost, found.undefined) == (1, 1)
    assert found.agreement().samples == 2
    nothing = saliency.compare(np.zeros((2, 2, 2)), np.ones((2, 2, 2))).agreement()
    assert (nothing.samples, nothing.correlation, nothing.overlap) == (0, None, None)
    broken = saliency.compare(np.full((1, 2, 2), np.nan), np.eye(2)[None])
    assert broken.undefined == 1


def test_deletion_covers_the_first_cells_first_and_areas_are_sklearns() -> None:
    orders = np.array([[2, 0, 3, 1]])
    shown = saliency.steps(orders, 2)[0]
    assert shown.tolist() == [[True] * 4, [False, True, False, True], [False] * 4]
    line = np.random.default_rng(0).random(17)
    assert saliency.area(line) == pytest.approx(auc(np.linspace(0, 1, 17), line))


def test_infidelity_is_captums() -> None:
    from captum.metrics import infidelity

    weights = torch.randn(9, generator=torch.Generator().manual_seed(0))

    def model(inputs: torch.Tensor) -> torch.Tensor:
        return (inputs @ weights) ** 2

    x = torch.rand(1, 9, generator=torch.Generator().manual_seed(1)) + 0.5
    map_ = np.random.default_rng(0).random((1, 9))
    hidden = np.random.default_rng(1).random((64, 9)) < 0.5
    drops = np.array([[float(model(x) - model(x * torch.from_numpy(~each))) for each in hidden]])
    ours = saliency.infidelity(map_, hidden, drops)
    masks = iter(torch.from_numpy(hidden))

    def perturb(inputs: torch.Tensor) -> Any:
        gone = torch.stack([next(masks) for _ in inputs])
        return gone.float(), inputs * ~gone

    theirs = infidelity(model, perturb, x, torch.from_numpy(map_).float(), n_perturb_samples=64, normalize=True)
    assert ours == pytest.approx(float(theirs) / float((drops**2).mean()), rel=1e-4)
    perfect = saliency.infidelity(np.array([[1.0, 2.0]]), np.array([[True, False], [True, True]]), np.array([[0.5, 1.5]]))
    assert perfect == pytest.approx(0.0, abs=1e-12)
    assert saliency.infidelity(map_, hidden, np.zeros((1, 64))) is None


def test_things_go_together_while_their_bytes_fit() -> None:
    assert list(_cells.batches([3, 3, 3, 9, 1, 1], 6)) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]
    assert list(_cells.batches([], 6)) == []
