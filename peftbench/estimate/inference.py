"""The memory of generating text: weights, a dynamic adapter, the KV cache, and the widest moments of a layer."""

from __future__ import annotations

from peftbench.memory import MemoryProfile
from peftbench.spec.gpu import GpuSpec
from peftbench.spec.inference import InferenceSpec
from peftbench.spec.model import ModelSpec


def estimate_inference(model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None = None) -> MemoryProfile:
    """Predict the memory of generate()."""
    raise NotImplementedError
