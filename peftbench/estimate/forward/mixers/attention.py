"""What attention keeps for backward: rotary embedding, and each kernel of scaled-dot-product attention."""

from __future__ import annotations

from dataclasses import replace

from peftbench.estimate.forward.generations import repeats_keys_for_flash
from peftbench.estimate.peft_forward.virtual_tokens import put_before, repeated
from peftbench.estimate.tape.autograd import FLOAT32, Tape, Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.parts import Attention
from peftbench.memory import Part

REGISTER_WIDTH = 128
"""Channels of a value that memory-efficient attention accumulates in registers."""


def rotate(c: Context, x: Tensor) -> Tensor:
    """Rotary embedding of one tensor: (x * cos) + (rotate_half(x) * sin).

    cos and sin need no gradient, so nothing of x is saved; the peaks are the temporaries, above all in backward,
    where each half's slice makes zeros of the whole. Where cos is wider than x the result is too.
    Source: apply_rotary_pos_emb in modeling_llama.py; partial rotations concatenate the rest (GPT-NeoX, Phi).
    """
    tape, heads = c.tape, x.width // c.attention.head_dim
    if c.training.fused_kernels != "none":  # in place, forward and backward
        return x
    rotary = heads * c.attention.rotary_dim
    if c.model.family.rotary == "gpt_oss":
        return _rotate_halves(c, x)
    if c.model.family.rotary == "float32":
        return tape.cast(rotate_whole(c, tape.cast(x, FLOAT32)), x.itemsize)
    if rotary == x.width and c.model.family.rotary != "phi3":
        return rotate_whole(c, x)
    turned, rest = tape.slice(x, rotary), tape.slice(x, x.width - rotary)
    return tape.concatenate((rotate_whole(c, turned), rest))


def rotate_whole(c: Context, x: Tensor) -> Tensor:
    """The same where all channels are rotated."""
    tape, float32_tables = c.tape, c.model.family.rotary == "olmo2"
    itemsize = FLOAT32 if float32_tables else max(x.itemsize, c.embedding_itemsize)
    straight = tape.new((x,), x.width, itemsize, saves_constant=True)
    half = _rotate_half(tape, x)
    crossed = tape.new((half,), x.width, itemsize, saves_constant=True)
    del half
    out = tape.add(straight, crossed)
    del straight, crossed
    return tape.cast(out, x.itemsize) if float32_tables else out


def _rotate_half(tape: Tape, x: Tensor) -> Tensor:
    first = tape.slice(x, x.width // 2)
    second = tape.slice(x, x.width // 2)
    return tape.concatenate((tape.scale(second), first))


def _rotate_halves(c: Context, x: Tensor) -> Tensor:
    """GPT-OSS: chunk in two, rotate each, concatenate."""
    tape = c.tape
    itemsize = max(x.itemsize, c.embedding_itemsize)
    first, second = tape.split(x, (x.width // 2, x.width // 2))
    half = x.width // 2
    left = tape.add(tape.new((first,), half, itemsize), tape.new((second,), half, itemsize))
    right = tape.add(tape.new((second,), half, itemsize), tape.new((first,), half, itemsize))
    return tape.concatenate((left, right))


def scale_by_position(c: Context, query: Tensor) -> Tensor:
    """The query times a number for each position, where the family scales it (Ministral 3, Mistral 4)."""
    if "rotated_query" not in c.model.family.scales:
        return query
    return c.tape.new((query,), query.width, query.itemsize, saves_constant=True)


def keep_in_cache(c: Context, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """DynamicCache.update: concatenates to the (empty) cache, so keys and values are copied and outlive the layer."""
    if c.past_tokens:
        return put_before(c, key, value)
    if not c.use_cache:
        return key, value
    keys, values = c.tape.concatenate((key,)), c.tape.concatenate((value,))
    c.cache += [tensor.storage for tensor in (keys, values) if tensor.storage is not None]
    return keys, values


def attention(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled-dot-product attention with the kernel that the card, the types and the mask allow."""
    kernels = {"flash": _flash, "efficient": _efficient, "math": _math, "eager": _eager, "cpu": _on_cpu}
    kernel = kernels[c.attention_kernel]
    if c.attention_kernel != "eager" and c.tape.autocast is not None:
        return kernel(c, *(c.tape.cast(x, c.tape.autocast) for x in (query, key, value)))
    if c.attention_kernel == "flash":
        return kernel(c, *(c.tape.cast(x, 2) for x in (query, key, value)))
    return kernel(c, query, key, value)


def attend_to_past(c: Context, query: Tensor, keys: Tensor, values: Tensor) -> None:
    """What attention of one new token makes of cached keys and values; fused kernels read them as they are."""
    if c.attention_kernel not in ("flash", "cpu"):
        attention(c, query, keys, values)


def _output_width(c: Context, query: Tensor) -> int:
    """Channels of the output, which are those of the values."""
    return query.width * c.attention.value_dim // c.attention.head_dim


def _repeat(c: Context, x: Tensor) -> Tensor:
    """repeat_kv: keys and values copied to the number of query heads; a single head is expanded without a copy."""
    if x.fixed_elements:
        return repeated(c, x)
    if x.width == c.attention.query_size or c.attention.key_value_heads == c.attention.heads:
        return x
    if c.attention.key_value_heads > 1:
        return c.tape.copy(x, c.attention.query_size)
    expanded = c.tape.view(x, c.attention.query_size)
    if x.needs_grad:
        c.tape.record((expanded,), (x,))
    return expanded


def _flash(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Flash attention: saves q, k, v, the output and one float32 log-sum-exp a head and token.

    Backward keeps float32 sums for dq (head dimension rounded up to 32, 64, 96, 128 or a multiple of 64) and, with
    fewer key heads, dk and dv for every query head before summing them.
    Source: mha_bwd in pytorch/aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp.
    """
    tape, heads, dim = c.tape, c.attention.heads, c.attention.head_dim
    if c.attention.value_dim != dim:
        return _flash_of_wide_keys(c, query, key, value)
    if repeats_keys_for_flash(c.model, c.training) and key.width != query.width:
        return _flash(c, query, _repeat(c, key), _repeat(c, value))
    rounded = next((d for d in (32, 64, 96, 128) if dim <= d), -(-dim // 64) * 64)
    out = tape.tensor(query.width, query.itemsize, query.needs_grad or key.needs_grad or value.needs_grad)
    statistics = tape.tensor(heads, FLOAT32)
    scratch = heads * FLOAT32 + heads * rounded * FLOAT32
    if key.width != query.width:
        scratch += 2 * query.width * query.itemsize
    if out.needs_grad:
        tape.record(
            (out,), (query, key, value), (query, key, value, out, statistics),
            scratch=((Part.WORKSPACE, scratch, 0),),
        )  # fmt: skip
    return out


def _flash_of_wide_keys(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Values are padded to the width of keys, and the output is cut.

    Source: flash_attention_forward in transformers/integrations/flash_attention.py.
    """
    padded = c.tape.new((value,), query.width, value.itemsize)
    wide = c.layer._replace(mixer=Attention(c.attention.heads, c.attention.heads, c.attention.head_dim))
    out = _flash(replace(c, layer=wide), query, key, padded)
    return c.tape.slice(out, _output_width(c, query))


def _efficient(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Memory-efficient attention: as flash, with the mask spread over the heads as a bias; needs equal heads.

    16-bit types have float32 accumulators, of dq in backward and of an output that is too wide for the registers.
    float32 sums gradient * output to one number a row, of which it makes a transposed copy.
    Source: attention.cu and attention_backward.cu in pytorch/aten/src/ATen/native/transformers/cuda.
    """
    rows, part, half = c.attention.heads * FLOAT32, c.attention, query.itemsize != FLOAT32
    scratch = rows * (1 + -(-part.head_dim // 64) * 64) if half else rows * (2 + part.value_dim)
    keys, values = _repeat(c, key), _repeat(c, value)
    accumulator = c.tape.tensor(part.value_dim, rows) if half and part.value_dim > REGISTER_WIDTH else None
    out = _with_statistics(c, query, keys, values, scratch)
    del accumulator
    return out


def _on_cpu(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The CPU's flash attention: shares key heads where there is no mask, in any type, without workspaces.

    Source: _scaled_dot_product_flash_attention_cpu in pytorch/aten/src/ATen/native/transformers/attention.cpp.
    """
    if c.masked or c.past_tokens:  # transformers copies key heads beside a mask
        return _with_statistics(c, query, _repeat(c, key), _repeat(c, value), 0)
    return _with_statistics(c, query, key, value, 0)


def _with_statistics(c: Context, query: Tensor, keys: Tensor, values: Tensor, scratch: int) -> Tensor:
    """Saves query, keys, values, the output and a float32 a head and token; `scratch` bytes a token in backward."""
    tape = c.tape
    needs_grad = query.needs_grad or keys.needs_grad or values.needs_grad
    out = tape.tensor(_output_width(c, query), query.itemsize, needs_grad)
    saved = [query, keys, values, out, tape.tensor(c.attention.heads, FLOAT32)]
    if c.masked and not c.model.alibi:  # a boolean mask becomes a bias in every layer
        saved.append(tape.tensor(c.virtual_tokens, query.itemsize, pairs=1))
    if out.needs_grad:
        tape.record((out,), (query, keys, values), saved, scratch=((Part.WORKSPACE, scratch, 0),))
    return out


def _scores(c: Context, query: Tensor, key: Tensor) -> Tensor:
    """One score a head for each token and key."""
    heads = c.attention.heads
    return c.tape.new((query, key), heads * c.virtual_tokens, query.itemsize, (query, key), pairs=heads)


def _math(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The unfused path of SDPA: half types are computed in float32, scores of every pair of tokens are kept.

    Source: _scaled_dot_product_attention_math in pytorch/aten/src/ATen/native/transformers/attention.cpp.
    """
    tape = c.tape
    heads = c.attention.query_size
    queries = tape.scale(tape.cast(query, FLOAT32))
    keys, values = tape.cast(key, FLOAT32), tape.cast(value, FLOAT32)
    if keys.width != heads:  # a single head is copied too, by the batched product
        keys, values = tape.copy(keys, heads), tape.copy(values, heads)
    keys = tape.scale(keys)
    scores = _safe_softmax(tape, _scores(c, queries, keys))
    scores = tape.dropout(scores, c.model.attention_dropout)
    out = tape.new((scores, values), _output_width(c, query), FLOAT32, (scores, values))
    return tape.cast(out, query.itemsize)


def _safe_softmax(tape: Tape, scores: Tensor) -> Tensor:
    """softmax whose rows are zero where all is masked: a softmax, a mask, and the result chosen by it.

    Source: _safe_softmax in pytorch/aten/src/ATen/native/transformers/attention.cpp.
    """
    chosen_from = tape.tensor(scores.width, scores.itemsize, pairs=scores.pairs)
    masked = tape.tensor(scores.width, 1, pairs=scores.pairs)
    out = tape.softmax(scores, scores.itemsize)
    del chosen_from, masked
    return out


def _eager(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """eager_attention_forward: scores, scaling, mask, softmax, dropout, product; each S×S a head.

    The softmax runs in float32 and is cast back, but for GPT-2 and Falcon, which leave that to autocast. The layer
    holds the weights that are returned beside the output until its own end.
    """
    if c.model.attention_sinks:
        return _eager_with_sinks(c, query, key, value)
    tape, itemsize = c.tape, query.itemsize
    key_states, value_states = _repeat(c, key), _repeat(c, value)
    weights = tape.scale(_batched_scores(c, query, key_states, key))
    if c.model.attn_logit_softcapping:
        weights = tape.scale(weights)
        weights = tape.unary(weights, "output")
        weights = tape.scale(weights)
    weights = _plus_mask(c, weights)
    upcasts = tape.autocast is not None or c.model.family.float32_softmax
    weights = tape.cast(tape.softmax(weights, FLOAT32 if upcasts else itemsize), itemsize)
    weights = tape.dropout(weights, c.model.attention_dropout)
    c.attention_weights = weights.storage
    return tape.copy(_batched_output(c, query, weights, value_states, value))


def _plus_mask(c: Context, weights: Tensor) -> Tensor:
    """The mask has the embeddings' type, which may be wider than that of autocast's scores."""
    itemsize = max(weights.itemsize, c.embedding_itemsize)
    aliases = (weights.key,) if weights.itemsize == itemsize else ()
    return c.tape.new((weights,), weights.width, itemsize, pairs=weights.pairs, aliases=aliases)


def _batched_scores(c: Context, query: Tensor, key_states: Tensor, key: Tensor) -> Tensor:
    concatenated = concatenates_rotated(c)
    expanded = key_states.storage is key.storage and key_states.width != key.width
    keys_strided = expanded or (key_states.storage is key.storage and not concatenated)
    return _scores(c, _operand(c, query, not concatenated), _operand(c, key_states, keys_strided))


def _batched_output(c: Context, query: Tensor, weights: Tensor, value_states: Tensor, value: Tensor) -> Tensor:
    values = _operand(c, value_states, value_states.storage is value.storage)
    low = _operand(c, weights, False)
    return c.tape.new((low, values), _output_width(c, query), values.itemsize, (low, values))


def _operand(c: Context, x: Tensor, strided: bool) -> Tensor:
    """What torch.matmul multiplies: autocast's type, batch and heads folded into one dimension.

    Folding copies a tensor that is not laid out head by head, or a single head that is expanded, unless there is only
    one sequence. Source: matmul in pytorch/aten/src/ATen/native/LinearAlgebra.cpp.
    """
    low = x if c.tape.autocast is None else c.tape.cast(x, c.tape.autocast)
    return c.tape.copy(low) if strided and c.several_sequences else low


def concatenates_rotated(c: Context) -> bool:
    """Whether the rotary embedding concatenates, which lays queries out head by head."""
    rotary_dim, head_dim = c.attention.rotary_dim, c.attention.head_dim
    return rotary_dim > 0 and (c.model.family.rotary in ("phi3", "gpt_oss") or rotary_dim < head_dim)


def _eager_with_sinks(c: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """GPT-OSS: a learned logit a head joins the scores, their maximum is subtracted, softmax stays in 16 bit.

    Source: eager_attention_forward in modeling_gpt_oss.py.
    """
    tape = c.tape
    key_states, value_states = _repeat(c, key), _repeat(c, value)
    weights = tape.scale(_batched_scores(c, query, key_states, key))
    weights = _plus_mask(c, weights)
    combined = tape.concatenate((weights,))
    largest = tape.new((combined,), c.attention.heads, combined.itemsize)
    combined = tape.new(
        (combined, largest), combined.width, combined.itemsize, pairs=combined.pairs, aliases=(combined.key,)
    )
    probabilities = tape.softmax(combined, combined.itemsize)
    scores = tape.slice(probabilities, probabilities.width)
    c.attention_weights = scores.storage
    return tape.copy(_batched_output(c, query, scores, value_states, value))
