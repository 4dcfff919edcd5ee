"""torchvision, imported so that it works beside a torch without CUDA."""

from __future__ import annotations

from typing import Any

import torch


def load_torchvision() -> Any:
    """Import torchvision; its CUDA-built wheel needs two operator schemas beside a CPU-only torch.

    Call this before importing anything that imports torchvision itself.
    """
    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", schema)
    import torchvision

    return torchvision
