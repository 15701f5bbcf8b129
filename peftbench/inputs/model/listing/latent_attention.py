"""The weights of latent attention."""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.model.listing.modules import linear_weights, norm_weights
from peftbench.inputs.model.parts import LatentAttention
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Weight


def latent_weights(model: ModelSpec, part: LatentAttention, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Projections down to the latents, norms of these, projections up to the heads, the output."""
    layout, hidden = model.family.layout, model.hidden_size
    at = layout.attention
    if part.query_rank:
        yield from linear_weights(f"{at}q_a_proj", part.query_rank, hidden, model.qkv_bias, layout, layers)
        yield from norm_weights(model, f"{at}q_a_layernorm", (part.query_rank,), layers)
        yield from linear_weights(f"{at}q_b_proj", part.query_size, part.query_rank, False, layout, layers)
    else:
        yield from linear_weights(f"{at}q_proj", part.query_size, hidden, False, layout, layers)
    down = part.latent + part.rotary_dim
    yield from linear_weights(f"{at}kv_a_proj_with_mqa", down, hidden, model.qkv_bias, layout, layers)
    yield from norm_weights(model, f"{at}kv_a_layernorm", (part.latent,), layers)
    yield from linear_weights(f"{at}kv_b_proj", part.expanded, part.latent, False, layout, layers)
    values, bias = part.heads * part.value_dim, model.attention_output_bias
    yield from linear_weights(at + layout.output, hidden, values, bias, layout, layers)
