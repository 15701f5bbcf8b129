"""The weights of feed-forward networks: MLPs and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from peftbench.inputs.model.family import SplitExperts
from peftbench.inputs.model.listing.modules import linear_weights
from peftbench.inputs.model.parts import Experts, Mlp
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight


def mlp_weights(model: ModelSpec, part: Mlp, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Projections of a gated or plain network."""
    return _network(model, model.family.layout.mlp, part.inner, layers)


def _network(model: ModelSpec, at: str, inner: int, layers: tuple[int, ...]) -> Iterator[Weight]:
    hidden, layout = model.hidden_size, model.family.layout
    for name in layout.inner:
        width = 2 * inner if layout.fused_gate else inner
        yield from linear_weights(at + name, width, hidden, model.mlp_bias, layout, layers)
    if model.hidden_act == "xielu":
        for name in ("alpha_p", "alpha_n"):
            yield Weight(f"{at}act_fn", name, (1,), Role.BIAS, layers)
    down = list(linear_weights(at + layout.down, hidden, inner, model.mlp_bias, layout, layers))
    yield from _last_unquantized(down) if _ends_with_layers(model) else down


def _ends_with_layers(model: ModelSpec) -> bool:
    """Whether the last layer's MLP has the model's last parameter: a tied head behind norms without weights."""
    return model.tie_word_embeddings and model.family.norm == "unweighted"


def _last_unquantized(weights: list[Weight]) -> Iterator[Weight]:
    """The weights, of the last layer apart: transformers quantizes no module that has the model's last parameter.

    Source: get_keys_to_not_convert in transformers/quantizers/base.py.
    """
    for weight in weights:
        assert weight.layers is not None
        if weight.layers[:-1]:
            yield replace(weight, layers=weight.layers[:-1])
        yield replace(weight, layers=weight.layers[-1:], quantizable=False)


def expert_weights(model: ModelSpec, part: Experts, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Router and experts, fused or apart, and the network beside them."""
    split = model.family.split_experts if model.split_experts else None
    yield from _split_experts(model, part, split, layers) if split else _experts(model, part, layers)
    if part.shared:
        layout = model.family.layout
        yield from _network(model, layout.shared, part.shared, layers)
        if layout.shared_gate:
            yield from linear_weights(layout.shared_gate, 1, model.hidden_size, False, layout, layers)


def _experts(model: ModelSpec, part: Experts, layers: tuple[int, ...]) -> Iterator[Weight]:
    """Router and fused experts, which may have biases where an MLP would."""
    experts, hidden, layout = part.number, model.hidden_size, model.family.layout
    shapes = {"gate_up_proj": (2 * part.inner, hidden), "down_proj": (hidden, part.inner)}
    biased = model.mlp_bias and layout.biased_experts
    yield Weight(layout.router, "weight", (experts, hidden), Role.ROUTER, layers)
    if biased:
        yield Weight(layout.router, "bias", (experts,), Role.ROUTER, layers)
    for name, (out, into) in shapes.items():
        stored = (experts, into, out) if layout.transposed_experts else (experts, out, into)
        yield Weight(layout.experts, name, stored, Role.EXPERTS, layers)
        if biased:
            yield Weight(layout.experts, f"{name}_bias", (experts, out), Role.EXPERTS, layers)


def _split_experts(
    model: ModelSpec, part: Experts, names: SplitExperts, layers: tuple[int, ...]
) -> Iterator[Weight]:
    """Router and experts as linear layers, of which bitsandbytes quantizes each. No such family has biases in them."""
    hidden, inner = model.hidden_size, part.inner
    yield Weight(names.router, "weight", (part.number, hidden), Role.LINEAR, layers, quantizable=True)
    for name in (*names.inner, names.down):
        shape = (hidden, inner) if name == names.down else (inner, hidden)
        path = f"{names.block}experts.{name}"
        yield Weight(path, "weight", shape, Role.LINEAR, layers, part.number, quantizable=True)
