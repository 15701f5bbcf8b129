"""The memory of generating text: weights, a dynamic adapter, the KV cache, and the widest moments of a layer.

Source: transformers 5.23, `generation/utils.py` (_prefill, _sample) and `cache_utils.py` (DynamicLayer,
DynamicSlidingWindowLayer).
"""

from __future__ import annotations

from peftbench.estimate.adapters import adapter_tensors, frozen_bytes
from peftbench.estimate.base_model import weight_components
from peftbench.estimate.generation import (
    LOGITS_COPY_BYTES,
    GenerationKey,
    attention_to_past,
    decode_layer_moments,
    prefill_moments,
)
from peftbench.estimate.kernels import attention_kernel, cublas_workspace_bytes, masks_sliding_layers
from peftbench.estimate.slack import context, slack
from peftbench.estimate.tensors import total_bytes, total_numel
from peftbench.estimate.weights import quantized_weights
from peftbench.memory import Component, MemoryProfile, Part, Phase, exact, modelled
from peftbench.spec.gpu import GpuSpec
from peftbench.spec.inference import InferenceSpec
from peftbench.spec.model import ModelSpec
from peftbench.spec.training import TrainingSpec
from peftbench.units import human_bytes

PREFILL = frozenset({Phase.PREFILL})
DECODE = frozenset({Phase.DECODE})
INPUT_BYTES_PER_TOKEN = 2 * 8
"""input_ids and attention_mask as int64."""
MOMENT_ERROR = 0.05
"""Relative error of the moments; see tests/oracles/test_generation.py."""
FUSED_TOKENS = 4
"""Up to so many tokens bitsandbytes multiplies 4-bit weights without writing them out."""


def estimate_inference(
    model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None = None
) -> MemoryProfile:
    """Predict the memory of generate() with its default cache: prefill of the prompts, then token by token.

    `gpu` decides the attention kernel, cuBLAS workspace and context; None stands for an Ampere card.
    Raises SpecError where the request cannot be: unknown target modules or adapter type.
    """
    running = PREFILL | DECODE if cached_tokens(inference) > inference.prompt_tokens else PREFILL
    always = running | {Phase.LOAD}
    moving = [*_cache(model, inference, running), *_moments(model, inference, gpu, running)]
    peak = max(sum(c.bytes for c in moving if phase in c.phases) for phase in running)
    return MemoryProfile((
        *weight_components(model, inference.dtype, inference.quantization, always),
        *_adapter(model, inference, always),
        exact(Part.WORKSPACE, _workspace_bytes(inference, gpu), running, "cuBLAS workspace, and the prompts"),
        *moving,
        slack(peak, running),
        context(gpu, always),
    ))  # fmt: skip


def cached_tokens(inference: InferenceSpec) -> int:
    """Tokens of one sequence in the cache at the end: the last one that is generated is never fed back."""
    return inference.prompt_tokens + max(inference.new_tokens - 1, 0)


def _adapter(model: ModelSpec, inference: InferenceSpec, phases: frozenset[Phase]) -> list[Component]:
    adapter = inference.adapter
    if adapter is None:
        return []
    tensors = adapter_tensors(model, adapter, inference.dtype)
    size = total_bytes(tensors) + frozen_bytes(model, adapter, inference.dtype)
    because = f"{total_numel(tensors):,} parameters in {adapter.dtype}, not merged"
    return [exact(Part.ADAPTERS, size, phases, because)]


def _workspace_bytes(inference: InferenceSpec, gpu: GpuSpec | None) -> int:
    """One thread, so one of the two handles that training has."""
    tokens = inference.batch_size * cached_tokens(inference)
    return cublas_workspace_bytes(gpu) // 2 + tokens * INPUT_BYTES_PER_TOKEN


# ── the cache ───────────────────────────────────────────────────────────────────────────────────────────


def _cache(model: ModelSpec, inference: InferenceSpec, running: frozenset[Phase]) -> list[Component]:
    """Keys and values of every layer; a sliding layer keeps its window, but not before the second token.

    After prefill a sliding layer holds a slice of the prompt's keys, which keeps all of them alive; the first
    decoding step replaces it layer by layer. So decoding peaks at its start or at its end.
    """
    each = 2 * model.key_value_size * inference.dtype.bytes * inference.batch_size
    layers, sliding = model.num_hidden_layers, len(model.sliding_layers)
    prompt, tokens = inference.prompt_tokens, cached_tokens(inference)
    window = min(tokens, model.sliding_window or tokens)
    at_end = (layers - sliding) * tokens + sliding * window
    because = f"{layers} layers × {each:,} B a token"
    parts = [exact(Part.KV_CACHE, layers * prompt * each, PREFILL, f"{because} × {prompt:,} tokens")]
    if Phase.DECODE in running:
        size = max(layers * prompt, at_end) * each
        slides = f", of which {sliding} layers keep {window:,}" if sliding else ""
        parts.append(exact(Part.KV_CACHE, size, DECODE, f"{because} × {tokens:,} tokens{slides}"))
    return parts


# ── the moments ─────────────────────────────────────────────────────────────────────────────────────────


def _moments(
    model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None, running: frozenset[Phase]
) -> list[Component]:
    key = _key(model, inference, gpu)
    parts = _prefill(key, inference)
    return [*parts, *_decode(key, inference)] if Phase.DECODE in running else parts


def _key(model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None) -> GenerationKey:
    """Kernels are chosen as in training without autocast."""
    as_training = TrainingSpec(
        sequence_length=inference.prompt_tokens,
        dtype=inference.dtype,
        autocast=False,
        attention=inference.attention,
    )
    kernel = attention_kernel(model, as_training, gpu)
    masked = masks_sliding_layers(model, as_training)
    return GenerationKey(
        model=model,
        dtype=inference.dtype,
        adapter=inference.adapter,
        quantization=inference.quantization if quantized_weights(model) else None,
        attention_kernel=kernel,
        sequence_length=inference.prompt_tokens if masked or kernel in ("math", "eager") else 0,
        masks_sliding_layers=masked,
    )


def _prefill(key: GenerationKey, inference: InferenceSpec) -> list[Component]:
    """The widest moment of a layer, or the last token's logits beside the hidden states."""
    tokens = inference.batch_size * inference.prompt_tokens
    widest = max(prefill_moments(key), key=lambda m: m.bytes_at(tokens))
    hidden_bytes = 2 * tokens * key.model.hidden_size * key.dtype.bytes
    if hidden_bytes + _logits_bytes(key, inference) > widest.bytes_at(tokens):
        return _logits(key, inference, PREFILL)
    return [
        modelled(part, size, PREFILL, _because(per_token, fixed, tokens), MOMENT_ERROR)
        for part, (per_token, fixed) in widest.by_part.items()
        if (size := per_token * tokens + fixed) > 0
    ]


def _decode(key: GenerationKey, inference: InferenceSpec) -> list[Component]:
    """The largest of what a step does in turn: the cache's growth, attention, a layer, the logits.

    A layer's cache grows by concatenation: its keys exist twice until the old ones are dropped, then its values.
    """
    model, batch = key.model, inference.batch_size
    past = batch * _attended(model, cached_tokens(inference))
    keys_bytes = past * model.key_value_size * key.dtype.bytes
    layer_bytes = max(moment.bytes_at(batch) for moment in decode_layer_moments(key))
    attention_bytes = past * attention_to_past(key)
    part, size, because = max(
        (Part.KV_CACHE, keys_bytes, "keys of one layer, old and new"),
        (Part.ACTIVATIONS, attention_bytes, f"{past:,} cached tokens in one layer's attention"),
        (Part.ACTIVATIONS, layer_bytes, "one layer, one token"),
        (Part.DEQUANTIZATION, _dequantized_bytes(key, batch), "the largest matrix in 16 bit"),
        key=lambda term: term[1],
    )
    if _logits_bytes(key, inference) >= size:
        return _logits(key, inference, DECODE)
    return [modelled(part, size, DECODE, because, MOMENT_ERROR)]


def _attended(model: ModelSpec, tokens: int) -> int:
    """Cached tokens of the layer that keeps the most."""
    all_slide = model.sliding_window and len(model.sliding_layers) == model.num_hidden_layers
    return min(tokens, model.sliding_window) if all_slide and model.sliding_window else tokens


def _dequantized_bytes(key: GenerationKey, tokens: int) -> int:
    quantization = key.quantization
    if quantization is None or not quantization.four_bit or tokens <= FUSED_TOKENS:
        return 0
    return max(w.numel for w in quantized_weights(key.model)) * quantization.compute_dtype.bytes


def _logits_bytes(key: GenerationKey, inference: InferenceSpec) -> int:
    return inference.batch_size * key.model.vocab_size * (key.dtype.bytes + LOGITS_COPY_BYTES)


def _logits(key: GenerationKey, inference: InferenceSpec, phases: frozenset[Phase]) -> list[Component]:
    each = key.dtype.bytes + LOGITS_COPY_BYTES
    because = f"{inference.batch_size:,} × {key.model.vocab_size:,} vocabulary × {each} B"
    return [modelled(Part.LOGITS, _logits_bytes(key, inference), phases, because, MOMENT_ERROR)]


def _because(per_token: int, fixed: int, tokens: int) -> str:
    by_token = f"{tokens:,} tokens × {per_token:,} B" if per_token else ""
    return " + ".join(text for text in (by_token, human_bytes(fixed) if fixed else "") if text)
