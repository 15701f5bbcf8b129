"""The router on the tape: which experts a token goes to, and how much each of them weighs.

Indices of experts, 8 bytes each, are left out.
"""

from __future__ import annotations

from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, dense


def routing_weights(c: Context, hidden_states: Tensor) -> Tensor:
    """The weights of the experts that each token is sent to."""
    tape, router, top_k = c.tape, c.model.family.router, c.experts.per_token
    logits = _logits(c, hidden_states)
    if router.scores == "softmax_of_chosen":
        chosen = tape.new((tape.cast(logits, FLOAT32),), top_k, FLOAT32)
        return tape.cast(tape.softmax(chosen, FLOAT32), hidden_states.itemsize)
    scores = _sigmoid(c, logits) if router.scores == "sigmoid" else _softmax(c, logits)
    if router.narrows:
        return tape.new((scores,), top_k, hidden_states.itemsize)
    weights = tape.new((scores,), top_k, scores.itemsize)
    return tape.scale(weights)


def _softmax(c: Context, logits: Tensor) -> Tensor:
    """In float32, or in its own type; autocast does every softmax in float32."""
    narrow = c.model.family.router.scores == "narrow_softmax" and c.tape.autocast is None
    return c.tape.softmax(logits, logits.itemsize if narrow else FLOAT32)


def _sigmoid(c: Context, logits: Tensor) -> Tensor:
    wide = c.tape.cast(logits, FLOAT32) if c.model.family.router.float32 == "scores" else logits
    return c.tape.unary(wide, "output")


def _logits(c: Context, x: Tensor) -> Tensor:
    """The product with the gate, which may be done in float32."""
    layout, number = c.model.family.layout, c.experts.number
    folded = _folded_gate(c, x.width) if layout.router in c.targets else None
    if folded is None and c.model.family.router.float32 == "scores":
        return dense(c.tape, x, number, c.unquantized_itemsize, c.full)
    return _product_with_cast_gate(c, x, folded)


def _product_with_cast_gate(c: Context, x: Tensor, folded: Tensor | None) -> Tensor:
    """Stream and gate are cast, and their casts saved; autocast casts both once more."""
    tape, router, elements = c.tape, c.model.family.router, c.experts.number * x.width
    wide = x.itemsize if router.float32 == "scores" else FLOAT32
    low = wide if tape.autocast is None else tape.autocast
    stream = tape.cast(tape.cast(x, wide), low)
    trained = c.full or folded is not None
    weight = folded
    if weight is None:
        weight = tape.tensor(0, low, trained, fixed_elements=elements if low != c.unquantized_itemsize else 0)
        if c.full:
            tape.record((weight,), (), parameter_gradients=elements * c.weight_itemsize)
    weight = tape.cast(weight, low)
    return tape.new((stream, weight), c.experts.number, low, (stream, weight) if trained else (weight,))


def _folded_gate(c: Context, width: int) -> Tensor:
    """W + scaling * BA, whose product is made in the factors' type or autocast's: the stream is saved for its gradient.

    Source: ParamWrapper and _LoraParameterProxy in peft/tuners/lora/layer.py, 0.21.
    """
    assert c.adapter is not None  # only targets come here
    tape, number, rank = c.tape, c.experts.number, c.adapter.r or 8
    low = c.adapter.dtype.bytes if tape.autocast is None else tape.autocast
    factors = rank * (number + width)
    cast = tape.tensor(0, low, fixed_elements=factors if low != c.adapter.dtype.bytes else 0)
    product = tape.tensor(0, low, True, fixed_elements=number * width)
    tape.record((product,), (), (cast,), parameter_gradients=factors * c.adapter.dtype.bytes)
    return tape.cast(tape.scale(product), c.unquantized_itemsize)
