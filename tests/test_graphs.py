"""Networks as graphs of what an INT8 file has tensors of, and ranges that are found inside activations and attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_qat import scales, share
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.efficientnet import MBConv, MBConvConfig

from edgebench.exporters import onnx as onnx_exporter
from edgebench.exporters import tflite
from edgebench.exporters._edgetpu.graph import read as read_graph
from edgebench.models import graphs
from edgebench.recipes._fake_quant import FakeQuantized
from edgebench.schema import ExportRequest, Lineage, Model, Network, Preprocessing, image_input

Array = NDArray[Any]


class Squeezed(nn.Module):
    """An inverted residual of EfficientNet: SiLU, and a gate by sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU(inplace=True))
        self.block = MBConv(MBConvConfig(4, 3, 1, 16, 16, 1), 0.2, nn.BatchNorm2d)
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.block(self.stem(images)).mean((2, 3)))
        return scores


def mobile() -> nn.Module:
    names: dict[str, Any] = {}
    exec(conftest.MOBILE, names)  # a MobileNetV3 of three blocks
    made: nn.Module = names["net"](10, 3, 16)
    return made


def attentive() -> nn.Module:
    made: nn.Module = VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=10)
    nn.init.normal_(made.get_parameter("heads.head.weight"))
    return made


def tokens() -> nn.Module:
    timm = pytest.importorskip("timm")
    made: nn.Module = timm.models.VisionTransformer(16, 4, 3, 10, embed_dim=32, depth=2, num_heads=4)
    return made


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hardswish": mobile,
    "silu": Squeezed,
    "attention": attentive,
    "timm's attention": tokens,
}


def learned_by(name: str) -> tuple[Network, Array]:
    """Make one of the networks, and learn its ranges from samples that are a tenth larger than those of the exporter."""
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    samples = torch.randn(8, 3, 16, 16)
    made = FakeQuantized(module, samples[:1], symmetric=False)
    made.calibrate([1.1 * samples])
    ranges = made.ranges()
    made.release()
    spec = Preprocessing(height=16, width=16, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = Model(
        name="net",
        architecture="nets:net",
        task="multi-class",
        classes=tuple("abcdefghij"),
        inputs=(image_input(spec),),
        sha256=name,
        parameters=1,
        lineage=Lineage(recipe="qat"),
    )
    return Network(model, module, None, ranges=ranges, graph=graphs.traced(module)), samples.numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_ranges_inside_activations_and_attention_are_found_in_an_onnx_file(name: str, here: Path) -> None:
    network, samples = learned_by(name)
    onnx_exporter.export(ExportRequest(network, "int8", onnx_exporter.Limits(), [samples]), here)
    ranges = np.array(list(network.ranges.values()))
    assert share(scales(here / "model.onnx"), (ranges[:, 1] - ranges[:, 0]) / 255) >= 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_ranges_inside_activations_and_attention_are_found_in_a_tflite_file(name: str) -> None:
    network, samples = learned_by(name)
    content = tflite.converted(ExportRequest(network, "int8", tflite.Limits(), [samples]))
    ranges = np.array(list(network.ranges.values()))
    assert share(activations(content), [*(ranges[:, 1] - ranges[:, 0]) / 255, 1 / 256]) >= 0.95


def activations(content: bytes) -> dict[str, float]:
    """Read the scale of each int8 tensor that an operator of a TFLite file makes of what is not constant."""
    graph = read_graph(content)
    made = {tensor.name: tensor for operator in graph.operators for tensor in operator.outputs if tensor is not None}
    return {name: tensor.scales[0] for name, tensor in made.items() if tensor.dtype == "int8"}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_computes_what_its_network_does_with_the_same_parameters(name: str) -> None:
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    graph, samples = graphs.traced(module), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        wanted, found = module(samples), graph(samples)
    assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))
    assert {id(each) for each in graph.parameters()} == {id(each) for each in module.parameters()}
    before = {node.name for node in torch.fx.symbolic_trace(module).graph.nodes}
    gone = before - {node.name for node in graph.graph.nodes}
    assert all("attention" in each or "getitem" in each for each in gone), gone


def test_attention_that_is_masked_stays_whole() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    graph, x = graphs.traced(Masked()), torch.randn(1, 2, 5, 8)
    assert torch.equal(graph(x), Masked()(x))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_function", "output"]


def test_a_network_with_attention_learns_and_keeps_its_own_weights() -> None:
    torch.manual_seed(0)
    module = attentive().eval()
    keys, before = list(module.state_dict()), copy.deepcopy(module.state_dict())
    made = FakeQuantized(module, torch.zeros(1, 3, 16, 16), symmetric=False)
    made.calibrate([torch.randn(4, 3, 16, 16)])
    made.train()
    made(torch.randn(4, 3, 16, 16)).square().mean().backward()
    torch.optim.SGD(made.parameters(), 0.1).step()
    made.release()
    after = module.state_dict()
    assert set(after) == set(keys)
    changed = {key for key in keys if not torch.equal(before[key], after[key])}
    assert {key for key in keys if "in_proj_weight" in key or "out_proj.weight" in key} <= changed


@pytest.mark.parametrize(("function", "limits"), [(torch.sigmoid, (0.0, 255 / 256)), (torch.softmax, (0.0, 1.0))])
def test_a_range_that_every_format_fixes_is_that_one(function: Callable[..., Any], limits: tuple[float, float]) -> None:
    class Bounded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x) if function is torch.sigmoid else torch.softmax(x, -1)

    made = FakeQuantized(Bounded(), torch.zeros(1, 3), symmetric=False)
    made.calibrate([torch.randn(4, 3)])
    made.follow(3)
    made.train()(torch.randn(4, 3))
    assert list(made.ranges().values())[-1] == limits
