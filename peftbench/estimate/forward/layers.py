"""The decoder layers of the supported architectures, written as transformers 5 writes their forward.

Local variables are those of the library's code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from collections.abc import Callable

from peftbench.estimate.forward.feed_forward import feed_forward
from peftbench.estimate.forward.mixer import mix
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.peft_forward.lora import adapted_embedding, trains_tokens
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, activation, norm
from peftbench.inputs.model.weights import norm_names


def embeddings(c: Context, needs_grad: bool) -> Tensor:
    """The stream that enters the first layer: tokens, learned positions, a projection (OPT-350m), dropout.

    With frozen weights a gradient is asked for by enable_input_require_grads, on the token embedding itself: it
    becomes a leaf, which the graph keeps.
    """
    model, tape = c.model, c.tape
    tokens = tape.tensor(model.embedding_size, c.embedding_itemsize, needs_grad)
    if needs_grad and not c.full and not trains_tokens(c.adapter) and tokens.storage is not None:
        tape.kept.append(tokens.storage)
    hidden_states = adapted_embedding(c, tokens)
    if model.embedding_size != model.hidden_size:
        hidden_states = linear(c, "project_in", hidden_states, model.hidden_size)
    if model.learned_positions:
        aliases = (hidden_states.key,)
        hidden_states = tape.new((hidden_states,), model.hidden_size, c.embedding_itemsize, aliases=aliases)
    if "embedding" in model.family.scales:
        hidden_states = tape.scale(hidden_states)
    return tape.dropout(hidden_states, model.embedding_dropout)


def decoder_layer(c: Context, x: Tensor) -> Tensor:
    """Run one decoder layer; until it returns, or is stopped, it holds the weights that eager attention returned."""
    form = _parallel_layer if c.model.parallel_attention else FORMS[c.model.family.form]
    try:
        return form(c, x)
    finally:
        c.attention_weights = None


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _llama_layer(c: Context, x: Tensor) -> Tensor:
    """Llama norms before attention and MLP, OLMo 2 only after, Gemma 2 and 3 before and after."""
    before, after = c.model.norm_before, c.model.norms_per_layer == 4 or not c.model.norm_before
    names = iter(norm_names(c.model))
    residual = hidden_states = x
    if before:
        hidden_states = norm(c, hidden_states, next(names))
    hidden_states = _dropped_after_mixer(c, mix(c, hidden_states))
    if after:
        hidden_states = norm(c, hidden_states, next(names))
    hidden_states = c.tape.add(residual, _scaled(c, hidden_states))
    residual = hidden_states
    if before:
        hidden_states = norm(c, hidden_states, next(names))
    hidden_states = c.tape.dropout(feed_forward(c, hidden_states), c.model.residual_dropout)
    if after:
        hidden_states = norm(c, hidden_states, next(names))
    return c.tape.add(residual, _scaled(c, hidden_states))


def _scaled(c: Context, x: Tensor) -> Tensor:
    """What is added to the residual, times a number where the family has one (Granite)."""
    return c.tape.scale(x) if "residual" in c.model.family.scales else x


def _dropped_after_mixer(c: Context, x: Tensor) -> Tensor:
    return c.tape.dropout(x, c.model.residual_dropout) if c.model.family.drops_attention else x


def _gpt2_block(c: Context, x: Tensor) -> Tensor:
    first, second = norm_names(c.model)
    residual = x
    hidden_states = norm(c, x, first)
    attention_output = mix(c, hidden_states)
    attention_output = c.tape.dropout(attention_output, c.model.residual_dropout)
    hidden_states = c.tape.add(attention_output, residual)
    residual = hidden_states
    hidden_states = norm(c, hidden_states, second)
    fed_forward = c.tape.dropout(feed_forward(c, hidden_states), c.model.residual_dropout)
    return c.tape.add(residual, fed_forward)


def _opt_layer(c: Context, x: Tensor) -> Tensor:
    """OPT norms before each block, OPT-350m after; its MLP has no function of its own, whose argument would live on."""
    before, layout = c.model.norm_before, c.model.family.layout
    first, second = layout.norms
    residual = hidden_states = x
    if before:
        hidden_states = norm(c, hidden_states, first)
    hidden_states = c.tape.dropout(mix(c, hidden_states), c.model.residual_dropout)
    hidden_states = c.tape.add(residual, hidden_states)
    if not before:
        hidden_states = norm(c, hidden_states, first)
    c.tape.flattened = True
    residual = hidden_states
    if before:
        hidden_states = norm(c, hidden_states, second)
    hidden_states = linear(c, layout.inner[0], hidden_states, c.mlp.inner, c.model.mlp_bias)
    hidden_states = activation(c, hidden_states)
    hidden_states = linear(c, layout.down, hidden_states, c.model.hidden_size, c.model.mlp_bias)
    hidden_states = c.tape.dropout(hidden_states, c.model.residual_dropout)
    hidden_states = c.tape.add(residual, hidden_states)
    return hidden_states if before else norm(c, hidden_states, second)


def _parallel_layer(c: Context, x: Tensor) -> Tensor:
    """GPT-NeoX, Phi and Falcon: attention and MLP read the same residual, through one norm or two."""
    model, tape, names = c.model, c.tape, norm_names(c.model)
    residual = x
    normed = norm(c, x, names[0])
    attention_output = _dropped_after_mixer(c, mix(c, normed))
    if model.norms_per_layer == 2:
        normed = norm(c, x, names[1])
    fed_forward = tape.dropout(feed_forward(c, normed), model.residual_dropout)
    return tape.add(tape.add(fed_forward, attention_output), residual)


def _falcon_layer(c: Context, x: Tensor) -> Tensor:
    """Falcon with attention and MLP in turn, and StableLM: the first norm's output stays a variable to the end."""
    model, tape = c.model, c.tape
    first, second = norm_names(model)
    normed = norm(c, x, first)
    attention_output = _dropped_after_mixer(c, mix(c, normed))
    residual = tape.add(x, attention_output)
    normed_again = norm(c, residual, second)
    return tape.add(residual, tape.dropout(feed_forward(c, normed_again), model.residual_dropout))


def _neox_layer(c: Context, x: Tensor) -> Tensor:
    tape, dropout = c.tape, c.model.residual_dropout
    first, second = norm_names(c.model)
    attention_output = tape.dropout(mix(c, norm(c, x, first)), dropout)
    attention_output = tape.add(attention_output, x)
    fed_forward = tape.dropout(feed_forward(c, norm(c, attention_output, second)), dropout)
    return tape.add(fed_forward, attention_output)


def _mamba_layer(c: Context, x: Tensor) -> Tensor:
    """One part, mixer or network, behind one norm, which takes its input in its own type."""
    (name,) = norm_names(c.model)
    residual = x
    hidden_states = norm(c, c.tape.cast(x, c.norm_itemsize), name)
    if c.model.residual_in_float32:
        residual = c.tape.cast(residual, FLOAT32)
    hidden_states = mix(c, hidden_states) if c.layer.mixer else feed_forward(c, hidden_states)
    return c.tape.add(residual, hidden_states)


FORMS: dict[str, Callable[[Context, Tensor], Tensor]] = {
    "llama": _llama_layer, "gpt2": _gpt2_block, "opt": _opt_layer, "gpt_neox": _neox_layer, "falcon": _falcon_layer,
    "mamba": _mamba_layer,
}  # fmt: skip
"""By `Family.form`: how a layer runs attention and MLP in turn."""
