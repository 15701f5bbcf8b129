"""The decoder layers of the supported architectures, written as transformers 5 writes their forward.

Local variables are those of the library's code, because they decide how long a tensor lives.
"""

from __future__ import annotations

from math import prod

from peftbench.estimate.forward.attention import attention, concatenates_rotated, keep_in_cache, rotate
from peftbench.estimate.forward.generations import keeps_fused_cache
from peftbench.estimate.peft_forward.dispatch import linear
from peftbench.estimate.peft_forward.lora import adapted_embedding
from peftbench.estimate.tape.autograd import FLOAT32, Tensor
from peftbench.estimate.tape.modules import Context, activation, dense, layer_norm, rms_norm
from peftbench.inputs.model.architectures.layouts import LAYOUTS, Layout
from peftbench.memory import Part


def embeddings(c: Context, needs_grad: bool) -> Tensor:
    """The stream that enters the first layer: tokens, learned positions, a projection (OPT-350m), dropout.

    With frozen weights a gradient is asked for by enable_input_require_grads, on the token embedding itself: it
    becomes a leaf, which the graph keeps.
    """
    model, tape = c.model, c.tape
    tokens = tape.tensor(model.embedding_size, c.rope_itemsize, needs_grad)
    if needs_grad and not c.full and tokens.storage is not None:
        tape.kept.append(tokens.storage)
    hidden_states = adapted_embedding(c, tokens)
    if model.embedding_size != model.hidden_size:
        hidden_states = linear(c, "project_in", hidden_states, model.hidden_size)
    if model.learned_positions:
        hidden_states = tape.new((hidden_states,), model.hidden_size, c.rope_itemsize, aliases=(hidden_states.key,))
    return tape.dropout(hidden_states, model.embedding_dropout)


def decoder_layer(c: Context, x: Tensor, dense_mlp: bool = False) -> Tensor:
    """Run one decoder layer; until it returns, or is stopped, it holds the weights that eager attention returned."""
    try:
        return _family_layer(c, x, dense_mlp)
    finally:
        c.attention_weights = None


def _family_layer(c: Context, x: Tensor, dense_mlp: bool) -> Tensor:
    family = c.model.model_type
    if family in ("gemma2", "gemma3_text", "olmo2"):
        return _sandwich_layer(c, x)
    if family in ("gpt2", "gpt_bigcode"):
        return _gpt2_block(c, x)
    if family == "opt":
        return _opt_layer(c, x)
    if c.model.parallel_attention or family == "falcon":
        return _parallel_layer(c, x)
    if family == "gpt_neox":
        return _sequential_neox_layer(c, x)
    return _llama_layer(c, x, dense_mlp)


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _llama_layer(c: Context, x: Tensor, dense_mlp: bool) -> Tensor:
    """Llama, Mistral, Qwen, Phi-3, SmolLM3, Gemma and the mixtures of experts."""
    residual = x
    hidden_states = rms_norm(c, x, "input_layernorm")
    hidden_states = _self_attention(c, hidden_states)
    hidden_states = c.tape.add(residual, c.tape.dropout(hidden_states, c.model.residual_dropout))
    residual = hidden_states
    hidden_states = rms_norm(c, hidden_states, "post_attention_layernorm")
    if c.model.num_experts and not dense_mlp:
        hidden_states = _experts(c, hidden_states)
    else:
        hidden_states = _mlp(c, hidden_states)
    return c.tape.add(residual, c.tape.dropout(hidden_states, c.model.residual_dropout))


def _sandwich_layer(c: Context, x: Tensor) -> Tensor:
    """Gemma 2 and 3 norm before and after each block, OLMo 2 only after."""
    before = c.model.norms_per_layer == 4
    residual = hidden_states = x
    if before:
        hidden_states = rms_norm(c, hidden_states, "input_layernorm")
    hidden_states = _self_attention(c, hidden_states)
    hidden_states = rms_norm(c, hidden_states, "post_attention_layernorm")
    hidden_states = c.tape.add(residual, hidden_states)
    residual = hidden_states
    if before:
        hidden_states = rms_norm(c, hidden_states, "pre_feedforward_layernorm")
    hidden_states = _mlp(c, hidden_states)
    hidden_states = rms_norm(c, hidden_states, "post_feedforward_layernorm")
    return c.tape.add(residual, hidden_states)


def _gpt2_block(c: Context, x: Tensor) -> Tensor:
    residual = x
    hidden_states = layer_norm(c, x)
    attention_output = _self_attention(c, hidden_states)
    attention_output = c.tape.dropout(attention_output, c.model.residual_dropout)
    hidden_states = c.tape.add(attention_output, residual)
    residual = hidden_states
    hidden_states = layer_norm(c, hidden_states)
    feed_forward = c.tape.dropout(_plain_mlp(c, hidden_states), c.model.residual_dropout)
    return c.tape.add(residual, feed_forward)


def _opt_layer(c: Context, x: Tensor) -> Tensor:
    """OPT norms before each block, OPT-350m after."""
    before = c.model.norm_before
    residual = hidden_states = x
    if before:
        hidden_states = layer_norm(c, hidden_states)
    hidden_states = c.tape.dropout(_self_attention(c, hidden_states), c.model.residual_dropout)
    hidden_states = c.tape.add(residual, hidden_states)
    if not before:
        hidden_states = layer_norm(c, hidden_states)
    c.tape.flattened = True
    residual = hidden_states
    if before:
        hidden_states = layer_norm(c, hidden_states)
    hidden_states = linear(c, "fc1", hidden_states, c.model.intermediate_size, c.model.mlp_bias)
    hidden_states = activation(c, hidden_states)
    hidden_states = linear(c, "fc2", hidden_states, c.model.hidden_size, c.model.mlp_bias)
    hidden_states = c.tape.dropout(hidden_states, c.model.residual_dropout)
    hidden_states = c.tape.add(residual, hidden_states)
    return hidden_states if before else layer_norm(c, hidden_states)


def _parallel_layer(c: Context, x: Tensor) -> Tensor:
    """GPT-NeoX, Phi and Falcon: attention and MLP read the same residual, through one norm or two."""
    model, tape = c.model, c.tape
    residual = x
    normed = layer_norm(c, x)
    attention_output = tape.dropout(_self_attention(c, normed), model.residual_dropout)
    if model.model_type == "falcon" and not model.parallel_attention:
        residual = tape.add(residual, attention_output)
        return tape.add(residual, tape.dropout(_plain_mlp(c, layer_norm(c, residual)), model.residual_dropout))
    if model.norms_per_layer == 2:
        normed = layer_norm(c, x)
    feed_forward = tape.dropout(_plain_mlp(c, normed), model.residual_dropout)
    return tape.add(tape.add(feed_forward, attention_output), residual)


def _sequential_neox_layer(c: Context, x: Tensor) -> Tensor:
    tape = c.tape
    attention_output = tape.dropout(_self_attention(c, layer_norm(c, x)), c.model.residual_dropout)
    attention_output = tape.add(attention_output, x)
    feed_forward = tape.dropout(_plain_mlp(c, layer_norm(c, attention_output)), c.model.residual_dropout)
    return tape.add(feed_forward, attention_output)


# ── attention ───────────────────────────────────────────────────────────────────────────────────────────────────────

def _layout(c: Context) -> Layout:
    return LAYOUTS[c.model.model_type]


def _self_attention(c: Context, hidden_states: Tensor) -> Tensor:
    query, key, value = _project(c, hidden_states)
    if c.rotates and c.model.rotary_dim:
        query, key = rotate(c, query), rotate(c, key)
    key, value = keep_in_cache(c, key, value)
    output = attention(c, query, key, value)
    if c.attention_kernel != "eager" and concatenates_rotated(c):
        # The output takes the layout of concatenated queries, head by head, and merging heads copies it.
        output = c.tape.copy(output)
    layout = _layout(c)
    return linear(c, layout.attention + layout.output, output, c.model.hidden_size, c.model.attention_output_bias)


def _project(c: Context, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, from one matrix or three."""
    model, layout = c.model, _layout(c)
    names = [layout.attention + name for name in layout.qkv]
    if len(names) == 1:
        return _project_fused(c, hidden_states)
    query = linear(c, names[0], hidden_states, model.query_size, model.qkv_bias)
    if model.model_type == "opt":
        query = c.tape.scale(query)
    norm = layer_norm if layout.layer_norm else rms_norm
    if model.qk_norm != "none":
        query = norm(c, query, "q_norm", model.num_attention_heads if model.qk_norm == "head" else 1)
    key = linear(c, names[1], hidden_states, model.key_value_size, model.qkv_bias)
    if model.qk_norm != "none":
        key = norm(c, key, "k_norm", model.num_key_value_heads if model.qk_norm == "head" else 1)
    value = linear(c, names[2], hidden_states, model.key_value_size, model.qkv_bias)
    return query, key, value


def _project_fused(c: Context, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    model, tape = c.model, c.tape
    widths = (model.query_size, model.key_value_size, model.key_value_size)
    layout = _layout(c)
    fused = linear(c, layout.attention + layout.qkv[0], hidden_states, sum(widths), model.qkv_bias)
    if keeps_fused_cache(c.model, c.training) and fused.storage is not None:
        c.cache.append(fused.storage)
    if model.model_type in ("phi3", "falcon"):
        query, key, value = (tape.slice(fused, width) for width in widths)
    else:
        query, key, value = tape.split(fused, widths)
    if model.model_type == "falcon" and 1 < model.num_key_value_heads < model.num_attention_heads:
        key, value = (tape.copy(tape.copy(x), model.query_size) for x in (key, value))  # indexed, then broadcast
    return query, key, value


# ── feed-forward networks ───────────────────────────────────────────────────────────────────────────────────────────


def _mlp(c: Context, x: Tensor) -> Tensor:
    """Gated: down(act(gate(x)) * up(x)); Phi-3 has gate and up in one matrix."""
    model, tape = c.model, c.tape
    inner = model.intermediate_size
    if model.model_type == "phi3":
        gate, up = tape.split(linear(c, "mlp.gate_up_proj", x, 2 * inner), (inner, inner))
        gated = tape.multiply(up, activation(c, gate))
        return linear(c, "mlp.down_proj", gated, model.hidden_size)
    if c.training.fused_kernels == "liger":
        gate, up = linear(c, "mlp.gate_proj", x, inner), linear(c, "mlp.up_proj", x, inner)
        gated = tape.new((gate, up), inner, gate.itemsize, (gate, up), returns_saved=True)
        del gate, up
        return linear(c, "mlp.down_proj", gated, model.hidden_size)
    return linear(
        c, "mlp.down_proj",
        tape.multiply(
            activation(c, linear(c, "mlp.gate_proj", x, inner, model.mlp_bias)),
            linear(c, "mlp.up_proj", x, inner, model.mlp_bias),
        ),
        model.hidden_size, model.mlp_bias,
    )  # fmt: skip


def _plain_mlp(c: Context, x: Tensor) -> Tensor:
    """fc2(act(fc1(x)))."""
    layout = _layout(c)
    inner = linear(c, layout.mlp + layout.inner[0], x, c.model.intermediate_size, c.model.mlp_bias)
    inner = activation(c, inner)
    return linear(c, layout.mlp + layout.down, inner, c.model.hidden_size, c.model.mlp_bias)


def _experts(c: Context, hidden_states: Tensor) -> Tensor:
    """Fused experts through grouped_mm: each token is copied to its k experts, and everything inner is k-fold.

    Source: grouped_mm_experts_forward in transformers/integrations/moe.py.
    """
    model, tape = c.model, c.tape
    top_k, inner, hidden = model.num_experts_per_tok, model.moe_intermediate_size, model.hidden_size
    weights = _router(c, hidden_states)
    selected = tape.new((hidden_states,), top_k * hidden, hidden_states.itemsize, saves_constant=True)
    folded: list[Tensor] = []  # PEFT's parametrizations cache their weights until this forward is over
    gate_up = _grouped(c, selected, 2 * top_k * inner, (2 * inner, hidden), folded)
    if model.model_type == "gpt_oss":
        gated = _gpt_oss_gate(c, gate_up)
    else:
        gate, up = tape.split(gate_up, (top_k * inner, top_k * inner))
        gated = tape.multiply(activation(c, gate), up)
        del gate, up
    del gate_up
    out = _grouped(c, gated, top_k * hidden, (hidden, inner), folded)
    del gated
    weighted = tape.multiply(out, weights)
    weighted = tape.new((weighted,), top_k * hidden, hidden_states.itemsize, saves_constant=True)  # by index
    return tape.new((weighted,), hidden, hidden_states.itemsize)


def _router(c: Context, hidden_states: Tensor) -> Tensor:
    tape, model = c.tape, c.model
    logits = dense(tape, hidden_states, model.num_experts, c.weight_itemsize, c.full)
    probabilities = tape.unary(tape.cast(logits, FLOAT32), "output")
    return tape.new((probabilities,), model.num_experts_per_tok, hidden_states.itemsize)


def _grouped(c: Context, x: Tensor, width: int, shape: tuple[int, int], folded: list[Tensor]) -> Tensor:
    """grouped_mm over all experts; trained when the base is. GPT-OSS adds a bias gathered for every token.

    Cards before Ampere run transformers' grouped_mm_fallback, whose backward makes the experts' gradient even where
    they are frozen. Source: transformers/integrations/moe.py.
    """
    if c.quantization is not None and c.quantization.scheme.reaches_experts:
        return _apart(c, x, width, shape)
    itemsize = _experts_itemsize(c)
    low = c.tape.cast(x, itemsize)  # autocast does not reach grouped_mm
    if c.model.model_type == "gpt_oss":
        c.tape.scratch(Part.ACTIVATIONS, width * itemsize, 0)
    if "mlp.experts" in c.targets:
        folded.append(_folded_weight(c, shape))
        return c.tape.new((low, folded[-1]), width, itemsize, (low, folded[-1]))
    size = prod(shape) * c.model.num_experts * itemsize
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
    fused, itemsize = 2 if shape[0] > c.model.hidden_size else 1, quantization.scheme.written_itemsize(quantization)
    written = ((Part.DEQUANTIZATION, 0, prod(shape) // fused * itemsize),)
    tape.scratch(*written[0])
    low = tape.cast(x, itemsize)
    out = tape.new((low,), width, itemsize, scratch=written)
    if c.adapter is None or "mlp.experts" not in c.targets:
        return out
    rank, factor_bytes = fused * (c.adapter.r or 8), c.adapter.dtype.bytes
    cast = tape.cast(low, factor_bytes if tape.autocast is None else tape.autocast)
    trained = c.model.num_experts * rank * factor_bytes
    inner = tape.tensor(c.model.num_experts_per_tok * rank, cast.itemsize, True)
    tape.record((inner,), (cast,), (cast,), parameter_gradients=trained * shape[1])
    change = tape.tensor(width, cast.itemsize, True)
    tape.record((change,), (inner,), (inner,), parameter_gradients=trained * shape[0])
    return tape.add(out, tape.cast(tape.scale(change), itemsize))


def _experts_itemsize(c: Context) -> int:
    """Experts are not quantized, so prepare_model_for_kbit_training makes them float32."""
    upcast = c.quantization is not None and c.quantization.upcast_unquantized
    return FLOAT32 if upcast else c.weight_itemsize


def _folded_weight(c: Context, shape: tuple[int, int]) -> Tensor:
    """The weights of all experts with LoRA folded in, W + scaling * B A: as large as W, saved for the tokens' gradient.

    Each expert has a rank of its own, twice for the fused gate and up. A and B are multiplied in the weights' type, and
    the product saves its factors. Source: ParamWrapper and _LoraFactorsProxy in peft/tuners/lora/layer.py, 0.21.
    """
    assert c.adapter is not None  # only targets come here
    experts, rank = c.model.num_experts, (c.adapter.r or 8) * (2 if shape[0] > c.model.hidden_size else 1)
    factors, itemsize = experts * rank * sum(shape), _experts_itemsize(c)
    cast = c.tape.tensor(0, itemsize, fixed_elements=factors if itemsize != c.adapter.dtype.bytes else 0)
    weight = c.tape.tensor(0, itemsize, True, fixed_elements=experts * prod(shape))
    c.tape.record((weight,), (), (cast,), parameter_gradients=factors * c.adapter.dtype.bytes)
    return weight


def _gpt_oss_gate(c: Context, gate_up: Tensor) -> Tensor:
    """(clamp(up) + 1) * clamp(gate) * sigmoid(alpha * gate) on interleaved channels."""
    tape, half = c.tape, gate_up.width // 2
    gate, up = tape.slice(gate_up, half), tape.slice(gate_up, half)
    gate = tape.unary(gate, "input")
    up = tape.unary(up, "input")
    glu = tape.multiply(gate, tape.unary(tape.scale(gate), "output"))
    return tape.multiply(tape.scale(up), glu)
