"""The feed-forward networks on the tape: gated and plain MLPs, and mixtures of experts.

Local variables are those of transformers' code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from peftbench.estimate.forward.router import routing_weights
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.tape.autograd import FLOAT32, Storage, Tensor
from peftbench.estimate.tape.ledger import SharedLedger
from peftbench.estimate.tape.modules import Context, activation
from peftbench.inputs.model.parts import Experts, FeedForward, Mlp
from peftbench.memory import Part


def feed_forward(c: Context, x: Tensor) -> Tensor:
    """The layer's MLP or experts."""
    assert c.layer.feed_forward is not None
    return NETWORKS[type(c.layer.feed_forward)](c, x)


def _mlp(c: Context, x: Tensor) -> Tensor:
    return _network(c, x, c.model.family.layout.mlp, c.mlp.inner)


def _network(c: Context, x: Tensor, at: str, inner: int) -> Tensor:
    """The gated or plain network at this path."""
    layout = c.model.family.layout
    if layout.fused_gate:
        return _fused_gate_mlp(c, x, at, inner)
    if len(layout.inner) == 1:
        return _plain_mlp(c, x, at, inner)
    gate, up = layout.inner
    return _gated_mlp(c, x, (at + gate, at + up, at + layout.down), inner)


def _fused_gate_mlp(c: Context, x: Tensor, at: str, inner: int) -> Tensor:
    """Phi-3 has gate and up in one matrix."""
    model, tape, layout = c.model, c.tape, c.model.family.layout
    fused = at + layout.inner[0]
    gate, up = tape.split(linear(c, fused, x, 2 * inner, model.mlp_bias), (inner, inner))
    gated = tape.multiply(up, activation(c, gate))
    return linear(c, at + layout.down, gated, model.hidden_size, model.mlp_bias)


def _gated_mlp(c: Context, x: Tensor, paths: tuple[str, str, str], inner: int) -> Tensor:
    """down(act(gate(x)) * up(x)), of the layers with these paths."""
    model, tape, (gate_proj, up_proj, down_proj) = c.model, c.tape, paths
    if c.training.fused_kernels == "liger":
        gate, up = linear(c, gate_proj, x, inner), linear(c, up_proj, x, inner)
        gated = tape.new((gate, up), inner, gate.itemsize, (gate, up), returns_saved=True)
        del gate, up
        return linear(c, down_proj, gated, model.hidden_size)
    if "mlp" in model.family.scales:
        return _scaled_mlp(c, x, paths, inner)
    return linear(
        c, down_proj,
        tape.multiply(
            activation(c, linear(c, gate_proj, x, inner, model.mlp_bias)), linear(c, up_proj, x, inner, model.mlp_bias)
        ),
        model.hidden_size, model.mlp_bias,
    )  # fmt: skip


def _scaled_mlp(c: Context, x: Tensor, paths: tuple[str, str, str], inner: int) -> Tensor:
    """Falcon-H1: the gate and the output times numbers."""
    model, tape, (gate_proj, up_proj, down_proj) = c.model, c.tape, paths
    y = tape.multiply(
        linear(c, up_proj, x, inner, model.mlp_bias),
        activation(c, tape.scale(linear(c, gate_proj, x, inner, model.mlp_bias))),
    )  # fmt: skip
    y = linear(c, down_proj, y, model.hidden_size, model.mlp_bias)
    return tape.scale(y)


def _plain_mlp(c: Context, x: Tensor, at: str, width: int) -> Tensor:
    """fc2(act(fc1(x)))."""
    layout = c.model.family.layout
    inner = linear(c, at + layout.inner[0], x, width, c.model.mlp_bias)
    inner = activation(c, inner)
    return linear(c, at + layout.down, inner, c.model.hidden_size, c.model.mlp_bias)


def _experts(c: Context, hidden_states: Tensor) -> Tensor:
    """The experts and what stands beside them, in the order in which the family runs them."""
    run = _split_experts if c.model.split_experts else _fused_experts
    if not c.experts.shared:
        return run(c, hidden_states)
    if not c.model.family.router.shared_first:
        routed = run(c, hidden_states)
        return c.tape.add(routed, _shared_expert(c, hidden_states))
    shared = _shared_expert(c, hidden_states)
    if not c.model.family.layout.shared_gate:
        return c.tape.add(run(c, hidden_states), shared)
    routed = run(c, hidden_states)
    weight = c.tape.unary(linear(c, c.model.family.layout.shared_gate, hidden_states, 1), "output")
    gated = c.tape.multiply(weight, shared)
    return c.tape.add(routed, gated)


def _shared_expert(c: Context, x: Tensor) -> Tensor:
    return _network(c, x, c.model.family.layout.shared, c.experts.shared)


def _fused_experts(c: Context, hidden_states: Tensor) -> Tensor:
    """Fused experts through grouped_mm: each token is copied to its k experts, and everything inner is k-fold.

    Source: grouped_mm_experts_forward in transformers/integrations/moe.py.
    """
    model, tape = c.model, c.tape
    top_k, inner, hidden = c.experts.per_token, c.experts.inner, model.hidden_size
    weights = routing_weights(c, hidden_states)
    selected = tape.new((hidden_states,), top_k * hidden, hidden_states.itemsize, saves_constant=True)
    folded: list[Tensor] = []  # PEFT's parametrizations cache their weights until this forward is over
    gate_up = _grouped(c, selected, 2 * top_k * inner, (2 * inner, hidden), folded)
    if model.family.clamped_gate:
        gated = _clamped_gate(c, gate_up)
    else:
        gate, up = tape.split(gate_up, (top_k * inner, top_k * inner))
        gated = tape.multiply(activation(c, gate), up)
        del gate, up
    del gate_up
    out = _grouped(c, gated, top_k * hidden, (hidden, inner), folded)
    del gated
    weighted = tape.multiply(out, weights)
    weighted = tape.new((weighted,), top_k * hidden, weighted.itemsize, saves_constant=True)  # by index
    summed = tape.new((weighted,), hidden, weighted.itemsize)
    return tape.cast(summed, hidden_states.itemsize)


def _grouped(c: Context, x: Tensor, width: int, shape: tuple[int, int], folded: list[Tensor]) -> Tensor:
    """grouped_mm over all experts; trained when the base is. A bias is gathered for every token and added.

    Cards before Ampere run transformers' grouped_mm_fallback, whose backward makes the experts' gradient even where
    they are frozen. Source: transformers/integrations/moe.py.
    """
    if c.quantization is not None and c.quantization.scheme.reaches_experts:
        return _apart(c, x, width, shape)
    itemsize = c.unquantized_itemsize
    low = c.tape.cast(x, itemsize)  # autocast does not reach grouped_mm
    if c.model.mlp_bias and c.model.family.layout.biased_experts:
        c.tape.scratch(Part.ACTIVATIONS, width * itemsize, 0)
    if c.model.family.layout.experts in c.targets:
        folded.append(_folded_weight(c, shape))
        return c.tape.new((low, folded[-1]), width, itemsize, (low, folded[-1]))
    size = prod(shape) * c.experts.number * itemsize
    out = c.tape.tensor(width, itemsize, low.needs_grad or c.full)
    if out.needs_grad:
        saved = () if c.grouped_mm and not c.full else (low,)
        scratch = () if c.grouped_mm or c.full else ((Part.ACTIVATIONS, 0, size),)
        gradient = size if c.full else 0
        c.tape.record((out,), (low,), saved, parameter_gradients=gradient, saves_constant=True, scratch=scratch)
    return out


def _apart(c: Context, x: Tensor, width: int, shape: tuple[int, int]) -> Tensor:
    """Experts of a checkpoint, linear layers of their own, whose matrices are written out one at a time.

    LoRA on them is taken for that on any layer, with the factors of all experts trained.
    """
    tape, quantization = c.tape, c.quantization
    assert quantization is not None  # callers ask for it
    fused, itemsize = _projections(c, shape), quantization.scheme.written_itemsize(quantization)
    written = ((Part.DEQUANTIZATION, 0, prod(shape) // fused * itemsize),)
    tape.scratch(*written[0])
    low = tape.cast(x, itemsize)
    out = tape.new((low,), width, itemsize, scratch=written)
    if c.adapter is None or c.model.family.layout.experts not in c.targets:
        return out
    rank, factor_bytes = fused * (c.adapter.r or 8), c.adapter.dtype.bytes
    cast = tape.cast(low, factor_bytes if tape.autocast is None else tape.autocast)
    trained = c.experts.number * rank * factor_bytes
    inner = tape.tensor(c.experts.per_token * rank, cast.itemsize, True)
    tape.record((inner,), (cast,), (cast,), parameter_gradients=trained * shape[1])
    change = tape.tensor(width, cast.itemsize, True)
    tape.record((change,), (inner,), (inner,), parameter_gradients=trained * shape[0])
    return tape.add(out, tape.cast(tape.scale(change), itemsize))


def _projections(c: Context, shape: tuple[int, int]) -> int:
    """How many an expert's matrix of this shape is made of: gate and up are fused, however wide they are."""
    return 2 if shape == (2 * c.experts.inner, c.model.hidden_size) else 1


def _folded_weight(c: Context, shape: tuple[int, int]) -> Tensor:
    """The weights of all experts with LoRA folded in, W + scaling * B A: as large as W, saved for the tokens' gradient.

    Each expert has a rank of its own, twice for the fused gate and up. A and B are multiplied in the weights' type, and
    the product saves its factors. Source: ParamWrapper and _LoraFactorsProxy in peft/tuners/lora/layer.py, 0.21.
    """
    assert c.adapter is not None  # only targets come here
    elements = c.experts.number * (c.adapter.r or 8) * _projections(c, shape)
    lora_b = _factor(c, elements * shape[0], permuted=True)
    lora_a = _factor(c, elements * shape[1], permuted=False)
    weight = c.tape.tensor(0, c.unquantized_itemsize, True, fixed_elements=c.experts.number * prod(shape))
    c.tape.record((weight,), (lora_b, lora_a), (lora_b, lora_a))
    return weight


def _factor(c: Context, elements: int, permuted: bool) -> Tensor:
    """One factor of all experts in the weights' type, whose gradient is cast back.

    Those of B are permuted, so that torch copies the gradient to give it the parameter's strides. Source:
    AccumulateGrad in torch/csrc/autograd/functions/accumulate_grad.h.
    """
    tape, itemsize, stored = c.tape, c.unquantized_itemsize, c.adapter.dtype.bytes if c.adapter else 0
    cast = itemsize != stored
    storage = Storage(tape.counts, tape.part, 0, elements * itemsize if cast else 0)
    factor = Tensor(storage, 0, itemsize, True, tape.next_key(), elements)
    copied = ((tape.part, 0, elements * stored),) if cast and permuted else ()
    tape.record((factor,), (), parameter_gradients=elements * stored, scratch=copied)
    return factor


def _clamped_gate(c: Context, gate_up: Tensor) -> Tensor:
    """GPT-OSS: (clamp(up) + 1) * clamp(gate) * sigmoid(alpha * gate) on interleaved channels."""
    tape, half = c.tape, gate_up.width // 2
    gate, up = tape.slice(gate_up, half), tape.slice(gate_up, half)
    gate = tape.unary(gate, "input")
    up = tape.unary(up, "input")
    glu = tape.multiply(gate, tape.unary(tape.scale(gate), "output"))
    return tape.multiply(tape.scale(up), glu)


# ── experts before transformers 5 ───────────────────────────────────────────────────────────────────────────────────

INT64 = 8


def _split_experts(c: Context, hidden_states: Tensor) -> Tensor:
    """A loop over MLPs of linear layers, each on the tokens that are sent to it: as many as to any other.

    Source: MixtralSparseMoeBlock.forward in transformers 4.48; those of OLMoE and Qwen3-MoE are alike.
    """
    model, tape, names = c.model, c.tape, c.model.family.split_experts
    assert names is not None  # built_by asks
    tape.flattened = True
    gate, up, down = (f"{names.block}experts.{name}" for name in (*names.inner, names.down))
    router_logits, routing_weights, selected_experts = _routed(c, hidden_states, names.router)
    final_hidden_states = tape.tensor(model.hidden_size, hidden_states.itemsize)
    expert_mask = tape.tensor(c.experts.per_token * c.experts.number, INT64)
    shared = SharedLedger(tape.ledger, c.experts.per_token, c.experts.number)
    for _ in range(c.experts.number):
        tape.counts = shared
        idx_top_x = tape.tensor(2, INT64)  # torch.where gives two views of one tensor
        current_state = _picked(c, hidden_states, idx_top_x, hidden_states.width)
        current_hidden_states = _gated_mlp(c, current_state, (gate, up, down), c.experts.inner)
        current_hidden_states = _weighted(c, current_hidden_states, routing_weights, idx_top_x)
        final_hidden_states = _added(c, final_hidden_states, current_hidden_states, idx_top_x)
        tape.counts = tape.ledger
    del router_logits, selected_experts, expert_mask
    tape.flattened = False
    return final_hidden_states


def _routed(c: Context, hidden_states: Tensor, router: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the router, the weights of the chosen experts, and which they are."""
    tape, top_k = c.tape, c.experts.per_token
    router_logits = linear(c, router, hidden_states, c.experts.number)
    probabilities = tape.softmax(router_logits, FLOAT32)
    selected_experts = tape.tensor(top_k, INT64)
    routing_weights = tape.new((probabilities,), top_k, FLOAT32, (selected_experts,))
    return router_logits, tape.cast(routing_weights, hidden_states.itemsize), selected_experts


def _picked(c: Context, x: Tensor, positions: Tensor, width: int) -> Tensor:
    """x[positions]: what an expert gets; the gradient is put into zeros as large as x."""
    tape, shared = c.tape, c.tape.counts
    out = tape.output(width, x.itemsize, x.needs_grad)
    if x.needs_grad:
        tape.counts = tape.ledger
        tape.record((out,), (x,), (positions,))
        tape.counts = shared
    return out


def _weighted(c: Context, x: Tensor, routing_weights: Tensor, positions: Tensor) -> Tensor:
    """x * routing_weights[positions]: the weights' gradient is made for every channel, then summed."""
    weights = _picked(c, routing_weights, positions, 1)
    full = ((c.tape.part, x.per_token, 0),)
    return c.tape.new((x, weights), x.width, max(x.itemsize, weights.itemsize), (x, weights), scratch=full)


def _added(c: Context, final: Tensor, x: Tensor, positions: Tensor) -> Tensor:
    """final.index_add_(0, positions, x.to(final.dtype)): in place; the gradient of x is picked out of that of final.

    x is saved for its shape alone: index_add in derivatives.yaml.
    """
    low = c.tape.cast(x, final.itemsize)
    total = Tensor(final.storage, final.width, final.itemsize, True, c.tape.next_key())
    c.tape.record((total,), (final, low), (positions, low), aliases=(final.key,))
    return total


NETWORKS: dict[type[FeedForward], Callable[[Context, Tensor], Tensor]] = {Mlp: _mlp, Experts: _experts}
"""What runs each kind of feed-forward network in `inputs/model/parts.py`."""
