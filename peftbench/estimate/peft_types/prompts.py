"""The tensors of PEFT types that the model has once: prompts, prefixes, tokens, shared vectors.

Sources: PEFT 0.21 `tuners/<type>/model.py` and `utils/other.py::_prepare_prompt_learning_config`.
"""

from __future__ import annotations

from peftbench.base.errors import SpecError
from peftbench.estimate.peft_types.shapes import Options, Shapes
from peftbench.inputs.model.parts import Attention
from peftbench.inputs.model.spec import ModelSpec


def key_value_width(model: ModelSpec) -> int:
    """Width of keys, or of values, as PEFT takes it for prefixes; it overlooks Falcon's shared heads.

    It makes them for every layer and all alike, which fits attention only.
    """
    if not all(isinstance(layer.mixer, Attention) for layer in model.layers):
        what = f"PEFT's prefixes are keys of plain attention, which not every layer of {model.name} has."
        raise SpecError(what, "Use prompt_tuning, or LoRA.")
    return model.hidden_size if model.family.prefix_spans_hidden else model.key_value_size


def linear(into: int, out: int) -> Shapes:
    """Weight and bias."""
    yield from ((out, into), (out,))


def prompt(model: ModelSpec, o: Options) -> Shapes:
    yield (o["num_virtual_tokens"], model.hidden_size)


def p_tuning(model: ModelSpec, o: Options) -> Shapes:
    """A prompt and the encoder that makes it."""
    width, inner = model.hidden_size, o["encoder_hidden_size"] or model.hidden_size
    kind = o["encoder_reparameterization_type"]
    if kind not in ("MLP", "LSTM"):
        raise SpecError(f"P-tuning has no encoder {kind!r}.", "encoder_reparameterization_type is MLP or LSTM.")
    yield from prompt(model, o)
    if kind == "MLP":
        yield from (*linear(width, inner), *linear(inner, inner), *linear(inner, width))
        return
    for layer in range(o["encoder_num_layers"]):
        into = 2 * inner if layer else width
        both_directions = ((4 * inner, into), (4 * inner, inner), (4 * inner,), (4 * inner,)) * 2
        yield from both_directions
    yield from (*linear(2 * inner, 2 * inner), *linear(2 * inner, width))


def prefix(model: ModelSpec, o: Options) -> Shapes:
    """Keys and values of every layer, or an embedding that a small network projects to them."""
    width = key_value_width(model)
    if not o["prefix_projection"]:
        yield from prefix_saved(model, o)
        return
    inner = o["encoder_hidden_size"] or width
    yield (o["num_virtual_tokens"], width)
    yield from (*linear(width, inner), *linear(inner, 2 * model.num_hidden_layers * width))


def prefix_saved(model: ModelSpec, o: Options) -> Shapes:
    """The result of the projection is saved, not the network."""
    yield (o["num_virtual_tokens"], 2 * model.num_hidden_layers * key_value_width(model))


def multitask_prompt(model: ModelSpec, o: Options) -> Shapes:
    tasks, tokens, ranks = o["num_tasks"], o["num_virtual_tokens"], o["num_ranks"]
    yield from ((tasks, tokens, ranks), (tasks, ranks, model.hidden_size), (tokens, model.hidden_size))


def cartridge(model: ModelSpec, o: Options) -> Shapes:
    """Keys and values of every layer; the first tokens stay frozen."""
    trained = o["num_virtual_tokens"] - o["num_frozen_tokens"]
    if trained < 1:
        raise SpecError("num_frozen_tokens leaves no virtual token to train.", "Raise num_virtual_tokens.")
    yield (trained, 2 * model.num_hidden_layers * key_value_width(model))


def adaption_prompt(model: ModelSpec, o: Options) -> Shapes:
    """A prompt and a gate in each of the last layers; PEFT knows it for three architectures."""
    if not model.family.adaption_prompt:
        raise SpecError(f"PEFT has no adaption prompt for {model.model_type}.", "It has llama, mistral, gpt2.")
    layers = model.num_hidden_layers if o["adapter_layers"] is None else o["adapter_layers"]
    if layers > model.num_hidden_layers:
        raise SpecError(f"adapter_layers={layers}, but {model.name} has {model.num_hidden_layers} layers.")
    yield from ((1, o["adapter_len"], model.hidden_size), (1,)) * layers


def tokens_given(model: ModelSpec, o: Options) -> int:
    """How many token ids the option token_indices lists: "12,815,40"."""
    ids = [part.strip() for part in o["token_indices"].split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in ids):
        raise SpecError(
            "trainable_tokens needs the tokens' ids.", "Write --adapter-option token_indices=128000,128001."
        )
    if len({*map(int, ids)}) < len(ids):
        raise SpecError("token_indices names a token twice, which PEFT would train twice.", "Name each once.")
    if max(map(int, ids)) >= model.vocab_size:
        what = f"token_indices names token {max(map(int, ids)):,}, but {model.name} has {model.vocab_size:,}."
        raise SpecError(what, "The first has number 0.")
    return len(ids)
