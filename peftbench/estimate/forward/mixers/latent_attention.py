"""Latent attention of a layer on the tape: keys and values of all heads are expanded from one latent a token.

Local variables are those of transformers' code, because they decide how long a tensor lives.
Source: modeling_deepseek_v3.py and modeling_deepseek_v2.py of transformers 5.23.
"""

from __future__ import annotations

from peftbench.estimate.forward.mixers.attention import (
    attend_to_past,
    attention,
    keep_in_cache,
    rotate_whole,
    scale_by_position,
)
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, norm
from peftbench.inputs.model.parts import LatentAttention


def latent_attention(c: Context, hidden_states: Tensor) -> Tensor:
    """Queries, a latent and a rotated key; these expanded, through a kernel and the output projection."""
    part, tape, layout, bias = _part(c), c.tape, c.model.family.layout, c.model.qkv_bias
    q_states = _queries(c, hidden_states)
    q_pass, q_rot = tape.split(q_states, (part.heads * part.plain_dim, part.heads * part.rotary_dim))
    down = f"{layout.attention}kv_a_proj_with_mqa"
    compressed_kv = linear(c, down, hidden_states, part.latent + part.rotary_dim, bias)
    kv_nope, k_rot = tape.split(compressed_kv, (part.latent, part.rotary_dim))
    kv_nope = norm(c, kv_nope, f"{layout.attention}kv_a_layernorm")
    q_rot, k_rot = _rotate(c, q_rot, k_rot)
    kv_nope, k_rot = keep_in_cache(c, kv_nope, k_rot)
    query_states = scale_by_position(c, tape.concatenate((tape.cast(q_pass, q_rot.itemsize), q_rot)))
    key_states, value_states = _expand(c, kv_nope, k_rot)
    output = attention(c, query_states, key_states, value_states)
    if c.attention_kernel in ("flash", "math"):  # laid out head by head, so that merging heads copies it
        output = tape.copy(output)
    return linear(c, layout.attention + layout.output, output, c.model.hidden_size, c.model.attention_output_bias)


def attend_to_latents(c: Context, query: Tensor, latents: Tensor, rotated: Tensor) -> None:
    """A generated token has every latent of the cache expanded anew."""
    keys, values = _expand(c, latents, rotated)
    attend_to_past(c, query, keys, values)


def _part(c: Context) -> LatentAttention:
    assert isinstance(c.layer.mixer, LatentAttention)
    return c.layer.mixer


def _queries(c: Context, hidden_states: Tensor) -> Tensor:
    """From one matrix, or from a latent of their own."""
    part, at = _part(c), c.model.family.layout.attention
    if not part.query_rank:
        return linear(c, f"{at}q_proj", hidden_states, part.query_size)
    down = linear(c, f"{at}q_a_proj", hidden_states, part.query_rank, c.model.qkv_bias)
    return linear(c, f"{at}q_b_proj", norm(c, down, f"{at}q_a_layernorm"), part.query_size)


def _expand(c: Context, kv_nope: Tensor, k_rot: Tensor) -> tuple[Tensor, Tensor]:
    """Keys, into which each head's own channels and the rotated ones of all are copied; and values, as they are made.

    Copying into a part of a tensor is an operation on all of it: its backward copies the whole gradient, then the part
    that it hands on (CopySlices in pytorch/torch/csrc/autograd/functions/tensor.cpp).
    """
    part, tape = _part(c), c.tape
    expanded = linear(c, f"{c.model.family.layout.attention}kv_b_proj", kv_nope, part.expanded)
    k_nope, value_states = tape.split(expanded, (part.heads * part.plain_dim, part.heads * part.value_dim))
    k_rot_of_all = tape.view(k_rot, part.heads * part.rotary_dim)
    if k_rot.needs_grad:
        tape.record((k_rot_of_all,), (k_rot,))
    empty = tape.tensor(part.query_size, expanded.itemsize)
    key_states = _copied_into(c, _copied_into(c, empty, k_nope), k_rot_of_all)
    return key_states, value_states


def _copied_into(c: Context, whole: Tensor, x: Tensor) -> Tensor:
    out = Tensor(whole.storage, whole.width, whole.itemsize, whole.needs_grad or x.needs_grad, c.tape.next_key())
    if not out.needs_grad:
        return out
    zeros = x.width * whole.itemsize if whole.needs_grad else 0
    own = 0 if whole.needs_grad else whole.per_token
    c.tape.record((out,), (whole, x), scratch=((c.tape.part, zeros + own, 0),))
    return out


def _rotate(c: Context, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_pos_emb of the channels that are rotated, which is another function in each family."""
    if c.training.fused_kernels != "none":  # in place, forward and backward
        return q, k
    rotation = _part(c).rotation
    if rotation == "halves":
        return rotate_whole(c, q), rotate_whole(c, k)
    if rotation == "complex":
        return _rotate_complex(c, q, k)
    return _rotate_pairs(c, q), _rotate_pairs(c, k)


def _rotate_pairs(c: Context, x: Tensor) -> Tensor:
    """apply_rotary_pos_emb_interleave: even and odd channels, each times cos and sin."""
    tape, half, itemsize = c.tape, x.width // 2, max(x.itemsize, c.embedding_itemsize)
    even, odd = tape.slice(x, half), tape.slice(x, half)
    turned = [
        tape.add(*(tape.new((part,), half, itemsize, saves_constant=True) for part in parts))
        for parts in ((even, odd), (odd, even))
    ]
    return tape.concatenate(turned)


def _rotate_complex(c: Context, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """apply_rotary_emb: both in float32, seen as complex numbers, times others."""
    tape = c.tape
    wide_q, wide_k = tape.cast(q, FLOAT32), tape.cast(k, FLOAT32)
    q_out = tape.cast(tape.new((wide_q,), q.width, FLOAT32, saves_constant=True), q.itemsize)
    k_out = tape.cast(tape.new((wide_k,), k.width, FLOAT32, saves_constant=True), k.itemsize)
    return q_out, k_out
