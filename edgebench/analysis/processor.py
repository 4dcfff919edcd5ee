"""What a processor's integer instructions mean for INT8 files. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgebench.schema import Accepts

X86, ARM = ("x86_64", "AMD64", "i686"), ("aarch64", "arm64", "armv7l", "armv8l")
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Any of these multiplies uint8 by int8 into 32 bits, as /proc/cpuinfo calls them."""
SATURATE = "without VNNI the processor adds pairs of products in 16 bits, which saturate where weights have 8 bits"
WEIGHTS = (
    "INT8 weights have 7 bits: right on every processor, and needed on x86 without VNNI, where 8 bits saturate (docs/method.md)"
)
REMEDY = "export again with 7-bit weights: `weight_bits: auto` in the target's limits, as `cpu` has it, chooses by the processor"


def saturates(environment: Mapping[str, Any]) -> bool | None:
    """Return whether ONNX Runtime's fused INT8 kernels may saturate there; None where that is not known.

    x86 without VNNI adds pairs of uint8 × int8 products in 16 bits (VPMADDUBSW):
    two products of 255 × 127 do not fit. With weights of 7 bits they do. Arm
    widens each product before it adds.
    """
    machine, instructions = environment.get("machine"), environment.get("int8_instructions")
    if machine in ARM:
        return False
    if machine not in X86 or instructions is None:
        return None
    return not set(instructions) & set(VNNI)


def may_lose(details: Mapping[str, Any], runtime: str, environment: Mapping[str, Any]) -> bool:
    """Return whether a bundle's 8-bit weights assume instructions that the processor lacks; `details` are the bundle's."""
    return runtime == "onnxruntime" and details.get("weight_bits") == 8 and saturates(environment) is True


def fitted(accepts: Accepts, environment: Mapping[str, Any] | None) -> Accepts:
    """Choose the weights' bits where the target leaves that to the processor; one that is not known gets 7.

    7 bits are right everywhere, 8 are finer: docs/method.md has what each costs.
    """
    if accepts.limits.get("weight_bits") != "auto":
        return accepts
    bits = 8 if environment is not None and saturates(environment) is False else 7
    return accepts.model_copy(update={"limits": {**accepts.limits, "weight_bits": bits}})
