"""How long generate() is expected to take: what the host has to launch, against what the card has to move and compute.

An expectation by formula, not a measurement. PyTorch launches ahead of the card, so a pass takes the longer of the two:

    pass = max(host, card)
    host = layers × LAYER + quantized linear layers × QUANTIZED_LINEAR + adapter matrices × ADAPTER_TENSOR
    card = max(arithmetic, weights read) + KV cache moved + weights dequantized

Not in it: scores of attention without a fused kernel, sampling, and the tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from peftbench.estimate.inference import FUSED_TOKENS, cached_tokens
from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.parts.mixing import cache_bytes, mixings_of
from peftbench.estimate.parts.tensors import total_bytes
from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.estimate.time.constants import DEQUANTIZED_BYTES, HOST_COSTS, HostCosts
from peftbench.estimate.time.flops import multiplied
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role
from peftbench.inputs.model.weights import weights_of
from peftbench.inputs.recipe import DType, InferenceSpec

BANDWIDTH_SHARE = 0.8
"""Share of the data sheet's bandwidth that reading weights reaches. Assumed: no published row is bound by it."""
COMPUTE_SHARE: dict[tuple[int, int] | None, float] = {
    (8, 0): 0.51, (8, 6): 0.6, (8, 9): 0.6, (9, 0): 0.37, (10, 0): 0.33, (12, 0): 0.6,
}  # fmt: skip
"""Share of the dense 16-bit peak by compute capability, as training runs of at least 2,048 tokens a step reach it.

8.0 and 9.0: geometric means over published sources. 10.0: within the 0.26 to 0.38 of published B200 runs. 8.6, 8.9 and
12.0: assumed, a little below the 0.66 of one source's GeForce runs, as professional cards share the capabilities.
No published prefill is bound by arithmetic, so none of them judges these."""
OTHER_COMPUTE_SHARE = 0.5
"""The same on cards without such a run: assumed."""
CACHE_PASSES = 3
"""A step reads the cache to concatenate the new token, writes it, and reads it for attention (DynamicLayer.update)."""
BAND = 1.5
"""Factor either way on a card that published rows were taken on: 9 in 10 of them are closer."""
UNCALIBRATED_BAND = 2.0
"""Factor on other cards. Assumed."""
TIMED_ADAPTERS = ("lora", "adalora", "ia3")
"""Adapters whose work is that of their matrices; DoRA, which builds every weight anew, has no formula."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One pass of the model over some tokens, whatever the card."""

    layers: int
    weight_bytes: int
    """Read once in the pass."""
    flops: int = 0
    cache_bytes: int = 0
    """KV cache read and written."""
    dequantized_weights: int = 0
    """4-bit weights that are written out in 16 bit."""
    quantized_linears: int = 0
    separate_absmax: bool = False
    """Double quantization before bitsandbytes 0.49."""
    adapter_tensors: int = 0


class PassTime(NamedTuple):
    """Seconds of one pass by cause."""

    launch_floor_s: float
    quantized_launches_s: float
    adapter_launches_s: float
    compute_s: float
    weight_traffic_s: float
    kv_cache_traffic_s: float
    dequantization_s: float

    @property
    def host_s(self) -> float:
        """What the host needs to launch it."""
        return self.launch_floor_s + self.quantized_launches_s + self.adapter_launches_s

    @property
    def card_s(self) -> float:
        """What the card needs to run it."""
        return max(self.compute_s, self.weight_traffic_s) + self.kv_cache_traffic_s + self.dequantization_s

    @property
    def seconds(self) -> float:
        """The whole pass."""
        return max(self.host_s, self.card_s)

    @property
    def bound_by(self) -> str:
        """The largest term of the slower side, in words: "launch floor"."""
        card = self.card_s > self.host_s
        names = self._fields[3:] if card else self._fields[:3]
        return max(names, key=lambda name: float(getattr(self, name))).removesuffix("_s").replace("_", " ")


class Latency(NamedTuple):
    """What a user waits for."""

    prefill: PassTime
    """To the first token."""
    decode: PassTime
    """One token of every sequence, with half of the new tokens in the cache."""
    batch_size: int
    calibrated: bool
    """Whether any published latency was taken on this card."""

    @property
    def band(self) -> float:
        """The times are expected within this factor either way."""
        return BAND if self.calibrated else UNCALIBRATED_BAND

    @property
    def tokens_per_s(self) -> float:
        """Generated after the first, over the batch."""
        return self.batch_size / self.decode.seconds


def estimate_latency(
    model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None, calibrated: bool = False
) -> Latency | None:
    """Expect the times of prefill and of a decoded token.

    None where something is unknown: the card's bandwidth or 16-bit rate, float32 arithmetic, int8 and GPTQ kernels, and
    adapters other than TIMED_ADAPTERS or on experts. Raises SpecError for an adapter that PEFT would refuse.
    """
    if gpu is None or not gpu.memory_bandwidth or not gpu.tensor_flops or not _has_formula(model, inference):
        return None
    prefill = pass_time(_prefill(model, inference), gpu.memory_bandwidth, _flops_per_s(gpu))
    decode = pass_time(_decode(model, inference), gpu.memory_bandwidth, _flops_per_s(gpu))
    return Latency(prefill, decode, inference.batch_size, calibrated)


def pass_time(work: Work, bandwidth: int, flops_per_s: float, costs: HostCosts = HOST_COSTS) -> PassTime:
    """Price one pass; `bandwidth` is the data sheet's, in bytes a second."""
    reached = BANDWIDTH_SHARE * bandwidth
    quantized = costs.quantized_linear_s + (costs.separate_absmax_s if work.separate_absmax else 0.0)
    return PassTime(
        launch_floor_s=work.layers * costs.layer_s,
        quantized_launches_s=work.quantized_linears * quantized,
        adapter_launches_s=work.adapter_tensors * costs.adapter_tensor_s,
        compute_s=work.flops / flops_per_s,
        weight_traffic_s=work.weight_bytes / reached,
        kv_cache_traffic_s=work.cache_bytes / reached,
        dequantization_s=work.dequantized_weights * DEQUANTIZED_BYTES / bandwidth,
    )


def _flops_per_s(gpu: GpuSpec) -> float:
    return COMPUTE_SHARE.get(gpu.compute_capability, OTHER_COMPUTE_SHARE) * (gpu.tensor_flops or 0)


def _has_formula(model: ModelSpec, inference: InferenceSpec) -> bool:
    quantization, adapter = inference.quantization, inference.adapter
    dtypes = {inference.dtype, quantization.compute_dtype if quantization else inference.dtype}
    if DType.FLOAT32 in dtypes or (quantization and not quantization.scheme.published):
        return False
    if adapter is None:
        return True
    sparse = any(weight.role in (Role.EXPERTS, Role.ROUTER) for weight in adapted_weights(model, adapter))
    return adapter.peft_type in TIMED_ADAPTERS and not adapter.use_dora and not sparse


# ── the work of a pass ──────────────────────────────────────────────────────────────────────────────────


def _prefill(model: ModelSpec, inference: InferenceSpec) -> Work:
    """All prompts; the head reads the last token of each, and causal attention half of all pairs."""
    batch, length = inference.batch_size, inference.prompt_tokens
    tokens = batch * length
    pairs = tokens * length // 2
    mixed = sum(
        layers * (pairs * mixing.pair_products + tokens * mixing.token_products)
        for mixing, layers in mixings_of(model).items()
    )
    return _work(model, inference, tokens, mixed, batch * cache_bytes(model, inference.dtype, length, slides=False))


def _decode(model: ModelSpec, inference: InferenceSpec) -> Work:
    """One token of each sequence, halfway through."""
    batch, length = inference.batch_size, (inference.prompt_tokens + cached_tokens(inference)) // 2
    mixed = batch * sum(
        layers * (mixing.seen(length) * (mixing.pair_products + mixing.past_products) + mixing.token_products)
        for mixing, layers in mixings_of(model).items()
    )
    moved = CACHE_PASSES * batch * cache_bytes(model, inference.dtype, length, slides=True)
    return _work(model, inference, batch, mixed, moved)


def _work(model: ModelSpec, inference: InferenceSpec, tokens: int, mixed: int, cache_bytes: int) -> Work:
    """`mixed` are the multiplications of all mixers beside their weights."""
    quantized = quantized_weights(model, inference.quantization)
    adapter = inference.adapter
    added = adapter_tensors(model, adapter, inference.dtype) if adapter else ()
    head = model.vocab_size * model.embedding_size
    products = tokens * (multiplied(model) + sum(group.numel for group in added)) + inference.batch_size * head
    return Work(
        layers=model.num_hidden_layers,
        weight_bytes=_read_bytes(model, inference, tokens) + total_bytes(added),
        flops=2 * (products + mixed),
        cache_bytes=cache_bytes,
        dequantized_weights=sum(w.total for w in quantized) if tokens > FUSED_TOKENS else 0,
        quantized_linears=sum(w.count for w in quantized),
        adapter_tensors=sum(group.count for group in added),
    )


def _read_bytes(model: ModelSpec, inference: InferenceSpec, tokens: int) -> int:
    """The base weights but for a table of embeddings that is only looked up, and experts that no token is sent to.

    Of 4-bit weights that are written out it is the copy that is read. An expert is left out by all tokens with the
    probability (1 - k/E)^tokens.
    """
    quantization = inference.quantization if tokens <= FUSED_TOKENS else None
    sizes = weight_bytes(model, inference.dtype, quantization)
    upcast = quantization is not None and quantization.upcast_unquantized
    each = DType.FLOAT32.bytes if upcast else inference.dtype.bytes
    looked_up = 0 if model.tie_word_embeddings else sum(w.total for w in weights_of(model) if w.role is Role.EMBEDDING)
    idle = (1 - model.num_experts_per_tok / model.num_experts) ** tokens if model.num_experts else 0.0
    return sizes.total_bytes - each * looked_up - round(idle * sizes.experts_bytes)
