"""The memory of generating text: weights, a dynamic adapter, the KV cache, and the widest moments of a layer.

Source: transformers 5.23, `generation/utils.py` (_prefill, _sample) and `cache_utils.py` (DynamicLayer,
DynamicSlidingWindowLayer).
"""

from __future__ import annotations

from peftbench.base.plain import check_classes
from peftbench.estimate.forward.generation import (
    GenerationKey,
    attention_to_past,
    decode_layer_moments,
    prefill_moments,
)
from peftbench.estimate.forward.kernels import attention_kernel, device_of, masks_sliding_layers
from peftbench.estimate.parts.base_weights import quantized_matrices, quantized_weights, weight_components
from peftbench.estimate.parts.card import CardTraits, traits_of
from peftbench.estimate.parts.mixing import cache_bytes, mixing_of, mixings_of
from peftbench.estimate.parts.slack import context, slack
from peftbench.estimate.parts.tensors import total_bytes, total_numel
from peftbench.estimate.peft_types.tensors import adapter_tensors, frozen_on_card_bytes
from peftbench.estimate.sharding.reserved import nccl
from peftbench.estimate.sharding.tensor_parallel import check_heads, split_cache, split_weights
from peftbench.estimate.tape.ledger import terms_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.memory import Component, MemoryProfile, Part, Phase, exact, modelled

PREFILL = frozenset({Phase.PREFILL})
DECODE = frozenset({Phase.DECODE})
INPUT_BYTES_PER_TOKEN = 2 * 8
"""input_ids and attention_mask as int64."""
MOMENT_ERROR = 0.05
"""Relative error of the moments; see tests/oracles/step/test_generation.py."""
COPY_BYTES = 4
"""generate() copies the last token's logits to float32 and holds the copy until the next step replaces it."""
SLACK = 0.12
"""What is kept of what comes and goes in generate(), which is not replayed: the share of a training step without
checkpoints."""
FUSED_TOKENS = 4
"""Up to so many tokens bitsandbytes multiplies 4-bit weights without writing them out."""


def estimate_inference(model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None = None) -> MemoryProfile:
    """Predict the memory of generate() with its default cache: prefill of the prompts, then token by token.

    `gpu` decides the attention kernel, cuBLAS workspace and context; None stands for an Ampere card.
    Raises SpecError where the request cannot be: unknown target modules or adapter type.
    """
    check_classes(model=(model, ModelSpec), recipe=(inference, InferenceSpec), gpu=(gpu, GpuSpec | None))
    running = PREFILL | DECODE if cached_tokens(inference) > inference.prompt_tokens else PREFILL
    always = running | {Phase.LOAD}
    card = traits_of(gpu)
    key = _key(model, inference, card)
    moving = [*_prefill(key, inference), *(_decode(key, inference) if Phase.DECODE in running else ())]
    gpus, dtype, quantization = inference.parallelism.gpus, inference.dtype, inference.quantization
    if gpus > 1:
        check_heads(model, gpus)
        weights = split_weights(model, dtype, quantization, gpus, always)
        moving = [split_cache(component, model, gpus) for component in moving]
    else:
        weights = weight_components(model, dtype, quantization, always)
    # One thread, so one of the two handles that training has.
    prompts_bytes = inference.batch_size * cached_tokens(inference) * INPUT_BYTES_PER_TOKEN
    workspace_bytes = card.cublas_bytes // 2 + prompts_bytes
    peak = max(sum(c.bytes for c in moving if phase in c.phases) for phase in running)
    kept = round(peak * SLACK)
    return MemoryProfile((
        *weights,
        *_adapter(model, inference, always),
        exact(Part.WORKSPACE, workspace_bytes, running, "cuBLAS workspace, and the prompts"),
        *moving,
        slack(kept, kept, kept, running, card, "a share of what comes and goes"),
        *nccl(inference.parallelism, gpu, always),
        context(gpu, always),
    ), gpu.usable_bytes if gpu else None)  # fmt: skip


def cached_tokens(inference: InferenceSpec) -> int:
    """Tokens of one sequence in the cache at the end: the last one that is generated is never fed back."""
    return inference.prompt_tokens + max(inference.new_tokens - 1, 0)


def _adapter(model: ModelSpec, inference: InferenceSpec, phases: frozenset[Phase]) -> list[Component]:
    adapter = inference.adapter
    if adapter is None:
        return []
    tensors = adapter_tensors(model, adapter, inference.dtype)
    size = total_bytes(tensors) + frozen_on_card_bytes(model, adapter, inference.dtype, moved=False)
    because = f"{total_numel(tensors):,} parameters in {adapter.dtype}, not merged"
    return [exact(Part.ADAPTERS, size, phases, because)]


# ── prefill ─────────────────────────────────────────────────────────────────────────────────────────────


def _prefill(key: GenerationKey, inference: InferenceSpec) -> list[Component]:
    """The cache of all layers, and the widest moment of a layer or of the head, which reads one token."""
    length = inference.prompt_tokens
    tokens = inference.batch_size * length
    widest = max(prefill_moments(key), key=lambda m: m.bytes_at(tokens, length))
    cache = _cache(key, inference, inference.prompt_tokens, PREFILL, slides=False)
    stream_bytes = tokens * key.model.hidden_size * key.dtype.bytes
    if stream_bytes + _logits_bytes(key, inference) > widest.bytes_at(tokens, length):
        stream = modelled(Part.ACTIVATIONS, stream_bytes, PREFILL, "the last layer's output", MOMENT_ERROR)
        return [cache, stream, _logits(key, inference, PREFILL, key.dtype.bytes + COPY_BYTES)]
    moment = [
        modelled(part, size, PREFILL, terms_of(per_token + per_pair * length, fixed, tokens), MOMENT_ERROR)
        for part, (per_token, per_pair, fixed) in widest.by_part.items()
        if (size := (per_token + per_pair * length) * tokens + fixed) > 0
    ]
    return [cache, *moment]


# ── decoding ────────────────────────────────────────────────────────────────────────────────────────────


def _decode(key: GenerationKey, inference: InferenceSpec) -> list[Component]:
    """Decoding peaks at its end, or at its start where layers slide.

    After prefill a sliding layer holds a slice of the prompt's keys, which keeps all of them alive; the first
    step replaces it by the window, layer by layer.
    """
    tokens, prompt = cached_tokens(inference), inference.prompt_tokens
    end = [_cache(key, inference, tokens, DECODE, slides=True), *_step(key, inference, tokens, slides=True)]
    start = [_cache(key, inference, prompt, DECODE, slides=False), *_first_step(key, inference, tokens)]
    return max(end, start, key=lambda components: sum(c.bytes for c in components))


def _step(key: GenerationKey, inference: InferenceSpec, tokens: int, *, slides: bool) -> list[Component]:
    """The largest of what a step does in turn, beside the float32 logits of the step before.

    A layer's cache grows by concatenation: its keys exist twice until the old ones go, then its values.
    """
    batch = inference.batch_size
    held = {layer: mixing_of(layer.mixer).seen(tokens) if slides else tokens for layer in set(key.model.layers)}
    keys_bytes = max(batch * length * mixing_of(layer.mixer).keys * key.dtype.bytes for layer, length in held.items())
    attention_bytes = max(batch * length * attention_to_past(key, layer) for layer, length in held.items())
    layer_bytes = max(moment.bytes_at(batch, 1) for moment in decode_layer_moments(key))
    part, size, because = max(
        (Part.KV_CACHE, keys_bytes, "keys of one layer, old and new"),
        (Part.ACTIVATIONS, attention_bytes, f"{max(held.values()):,} cached tokens in one layer's attention"),
        (Part.ACTIVATIONS, layer_bytes, "one layer, one token"),
        (Part.DEQUANTIZATION, _dequantized_bytes(key, batch), "the largest matrix in 16 bit"),
        key=lambda term: term[1],
    )
    if _logits_bytes(key, inference) >= size:
        return [_logits(key, inference, DECODE, key.dtype.bytes + 2 * COPY_BYTES)]
    before = _logits(key, inference, DECODE, COPY_BYTES)
    return [before, modelled(part, size, DECODE, because, MOMENT_ERROR)]


def _first_step(key: GenerationKey, inference: InferenceSpec, tokens: int) -> list[Component]:
    """The first layer with a cache in the first step, while every layer still has the whole prompt."""
    first = next((mixing for layer in key.model.layers if (mixing := mixing_of(layer.mixer)).keys), None)
    if first is None or first.window is None:
        return _step(key, inference, inference.prompt_tokens, slides=False)
    size = inference.batch_size * first.seen(tokens) * first.token_bytes(key.dtype)
    because = "the window of one layer, copied out of the prompt"
    window_copy = modelled(Part.KV_CACHE, size, DECODE, because, MOMENT_ERROR)
    return [_logits(key, inference, DECODE, COPY_BYTES), window_copy]


def _dequantized_bytes(key: GenerationKey, tokens: int) -> int:
    quantization = key.quantization
    if quantization is None or tokens <= FUSED_TOKENS:
        return 0
    largest = max(matrices.numel for matrices in quantized_matrices(key.model, quantization))
    return largest * quantization.scheme.written_itemsize(quantization)


# ── what both have ──────────────────────────────────────────────────────────────────────────────────────


def _key(model: ModelSpec, inference: InferenceSpec, card: CardTraits) -> GenerationKey:
    """Kernels are chosen as in training without autocast."""
    as_training = TrainingSpec(
        sequence_length=inference.prompt_tokens, dtype=inference.dtype, autocast=False, attention=inference.attention
    )
    return GenerationKey(
        model=model,
        dtype=inference.dtype,
        adapter=inference.adapter,
        quantization=inference.quantization if quantized_weights(model, inference.quantization) else None,
        attention=inference.attention,
        attention_kernel=attention_kernel(model, as_training, card),
        device=device_of(inference.dtype, card),
        masks_sliding_layers=masks_sliding_layers(model, as_training),
    )


def _cache(
    key: GenerationKey, inference: InferenceSpec, length: int, phases: frozenset[Phase], *, slides: bool
) -> Component:
    """What all layers keep of every sequence, each of so many tokens."""
    batch, mixings = inference.batch_size, mixings_of(key.model)
    kept = cache_bytes(key.model, key.dtype, length, slides=slides)
    because = f"{batch:,} × {kept:,} B, which {key.model.num_hidden_layers} layers keep of a sequence"
    each = {mixing.token_bytes(key.dtype) for mixing in mixings}
    if len(each) == 1 and not any(mixing.state_bytes(key.dtype) for mixing in mixings):
        token = each.pop()
        layers = f"summed over {key.model.num_hidden_layers} layers"
        because = f"{batch:,} × {kept // token if token else 0:,} tokens, {layers}, × {token:,} B"
    return exact(Part.KV_CACHE, batch * kept, phases, because)


def _logits_bytes(key: GenerationKey, inference: InferenceSpec) -> int:
    return inference.batch_size * key.model.vocab_size * (key.dtype.bytes + COPY_BYTES)


def _logits(key: GenerationKey, inference: InferenceSpec, phases: frozenset[Phase], each: int) -> Component:
    because = f"{inference.batch_size:,} × {key.model.vocab_size:,} vocabulary × {each} B"
    size = inference.batch_size * key.model.vocab_size * each
    return modelled(Part.LOGITS, size, phases, because, MOMENT_ERROR)
