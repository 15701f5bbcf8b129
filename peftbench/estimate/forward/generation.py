"""The moments of generate(): one layer of each kind run on the tape, without recording anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.forward.kernels import part_kernel
from peftbench.estimate.forward.layers import decoder_layer
from peftbench.estimate.forward.mixer import PASTS
from peftbench.estimate.forward.segments import Kind
from peftbench.estimate.parts.mixing import mixing_of
from peftbench.estimate.peft_types.tensors import adapted_paths
from peftbench.estimate.tape.autograd import Tape, Tensor
from peftbench.estimate.tape.device import Device
from peftbench.estimate.tape.ledger import Ledger, Moment
from peftbench.estimate.tape.modules import Context, norm
from peftbench.inputs.model.parts import Layer
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.memory import Part


class GenerationKey(NamedTuple):
    """What decides the moments of generate(), apart from the number of tokens."""

    model: ModelSpec
    dtype: DType
    adapter: AdapterSpec | None
    quantization: QuantizationSpec | None
    """None where bitsandbytes finds nothing to quantize."""
    attention: str
    """The recipe's attn_implementation."""
    attention_kernel: str
    device: Device
    masks_sliding_layers: bool


@lru_cache(maxsize=2048)
def prefill_moments(key: GenerationKey) -> tuple[Moment, ...]:
    """What prefill holds above weights and cache, by token of the prompt: its layers and the final norm.

    The caller counts the cache of all layers: it is only full at the last ones, the peak. The embeddings stay
    alive throughout, as `inputs_embeds` of the model's forward, and so does an attention mask.
    """
    moments: list[Moment] = []
    for kind in _kinds(key.model):
        context = _context(key, kind)
        throughout = _alive_throughout(context)
        decoder_layer(context, _hidden_states(context))
        cached = mixing_of(kind.layer.mixer).token_bytes(key.dtype)
        moments += (_without_cache(moment, cached) for moment in context.tape.ledger.take_moments())
        del throughout
    return (*moments, *_final_norm(key))


@lru_cache(maxsize=2048)
def decode_layer_moments(key: GenerationKey) -> tuple[Moment, ...]:
    """What one layer holds for each sequence while it computes one token, attention to the past apart."""
    return prefill_moments(key._replace(masks_sliding_layers=False, quantization=None))


@lru_cache(maxsize=2048)
def attention_to_past(key: GenerationKey, layer: Layer) -> int:
    """Bytes for each cached token that this layer's attention of one new token takes, beside the cache itself."""
    if layer.attention is None:
        return 0
    context = _context(key._replace(masks_sliding_layers=False), Kind(layer))
    mixing, itemsize = mixing_of(layer.mixer), key.dtype.bytes
    widths = (mixing.keys, mixing.values)
    cached = (Tensor(None, width, itemsize, False, context.tape.next_key()) for width in widths)
    query = Tensor(None, 0, itemsize, False, context.tape.next_key())
    PASTS[type(layer.attention)](context, query, *cached)
    return max((moment.per_token + moment.per_pair for moment in context.tape.ledger.take_moments()), default=0)


def _kinds(model: ModelSpec) -> tuple[Kind, ...]:
    return tuple(Kind(layer) for layer in dict.fromkeys(model.layers))


def _context(key: GenerationKey, kind: Kind) -> Context:
    """A layer in eval mode under no_grad: nothing is saved, nothing is dropped."""
    sliding = kind.layer.slides and key.masks_sliding_layers
    kernel = part_kernel(kind.layer.attention, key.attention_kernel, key.attention)
    kernel = "efficient" if sliding and kernel == "flash" else kernel
    recipe = TrainingSpec(dtype=key.dtype, adapter=key.adapter, use_cache=True, gradient_checkpointing=False)
    return Context(
        tape=Tape(Ledger(), records=False, device=key.device),
        model=_without_dropout(key.model), layer=kind.layer, training=recipe,
        targets=adapted_paths(key.model, key.adapter), quantization=key.quantization, attention_kernel=kernel,
        weight_itemsize=key.dtype.bytes, embedding_itemsize=key.dtype.bytes,
        masked=sliding or key.attention_kernel == "eager",
    )  # fmt: skip


@lru_cache(maxsize=256)
def _without_dropout(model: ModelSpec) -> ModelSpec:
    return replace(model, attention_dropout=0.0, residual_dropout=0.0, embedding_dropout=0.0)


def _hidden_states(c: Context) -> Tensor:
    return c.tape.tensor(c.model.hidden_size, c.weight_itemsize)


def _alive_throughout(c: Context) -> tuple[Tensor, ...]:
    """The embeddings, and the mask where one is made: a bias for eager attention, booleans for SDPA.

    Some embed the positions of every sequence beside the tokens (OPT).
    """
    tables = 1 + c.model.family.positions_by_sequence
    embeddings = c.tape.tensor(tables * c.model.hidden_size, c.weight_itemsize)
    if not c.masked:
        return (embeddings,)
    mask_itemsize = c.weight_itemsize if c.attention_kernel == "eager" else 1
    return embeddings, c.tape.tensor(0, mask_itemsize, pairs=1)


def _without_cache(moment: Moment, cache: int) -> Moment:
    """Take the layer's own keys and values off, so many bytes a token: the caller counts those of all layers."""
    per_token, per_pair, fixed = moment.by_part.get(Part.ACTIVATIONS, (0, 0, 0))
    by_part = {**moment.by_part, Part.ACTIVATIONS: (per_token - cache, per_pair, fixed)}
    return moment._replace(per_token=moment.per_token - cache, by_part=by_part)


def _final_norm(key: GenerationKey) -> Iterator[Moment]:
    """The norm over all tokens of the prompt; the head then reads the last one only (logits_to_keep=1)."""
    if not key.model.final_norm:
        return
    context = _context(key, _kinds(key.model)[-1])
    throughout = _alive_throughout(context)
    norm(context, _hidden_states(context), key.model.family.layout.final_norm)
    del throughout
    yield from context.tape.ledger.take_moments()
