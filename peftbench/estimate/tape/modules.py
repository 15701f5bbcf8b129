"""What linear layers, norms and activations keep for backward, as transformers and bitsandbytes run them."""

from __future__ import annotations

from dataclasses import dataclass, field

from peftbench.estimate.tape.autograd import FLOAT32, Storage, Tape, Tensor
from peftbench.inputs.model.parts import AnyAttention, DeltaNet, Experts, Layer, Mlp, StateSpace
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import Part


@dataclass(eq=False, repr=False)
class Context:
    """One decoder layer being run on a tape: the model, the recipe, and how its modules compute."""

    tape: Tape
    model: ModelSpec
    layer: Layer
    training: TrainingSpec
    targets: frozenset[str]
    """Module names that carry the adapter."""
    quantization: QuantizationSpec | None
    """Storage of the linear layers' weights."""
    attention_kernel: str
    """"flash", "efficient", "math", "eager" or "cpu"."""
    weight_itemsize: int
    """Bytes an element of base weights that are not quantized."""
    embedding_itemsize: int
    """Bytes an element of the stream as it starts, and so of rotary tables and of masks that are added."""
    grouped_mm: bool = True
    """The card multiplies all experts at once."""
    masked: bool = False
    """An explicit attention mask is built, so SDPA cannot take the causal shortcut."""
    past_tokens: int = 0
    """Keys and values that prefix tuning puts before the sequences of the micro-batch."""
    quantized_saves_input: bool = False
    """Linear4bit keeps its input on the ctx though its weight is frozen (bitsandbytes before 0.43.2)."""
    attention_weights: Storage | None = None
    """What eager attention returned beside its output."""
    cache: list[Storage] = field(default_factory=list)
    """Keys and values that the model's outputs keep."""

    @property
    def adapter(self) -> AdapterSpec | None:
        """The recipe's."""
        return self.training.adapter

    @property
    def attention(self) -> AnyAttention:
        """The heads of the layer's attention, where it has some."""
        assert self.layer.attention is not None
        return self.layer.attention

    @property
    def state_space(self) -> StateSpace:
        """The layer's scan, where it has one."""
        assert self.layer.state_space is not None
        return self.layer.state_space

    @property
    def delta_net(self) -> DeltaNet:
        """The layer's gated delta net, where it has one."""
        assert isinstance(self.layer.mixer, DeltaNet)
        return self.layer.mixer

    @property
    def mlp(self) -> Mlp:
        """The layer's MLP, where it has one."""
        assert isinstance(self.layer.feed_forward, Mlp)
        return self.layer.feed_forward

    @property
    def experts(self) -> Experts:
        """The layer's experts, where it has some."""
        assert isinstance(self.layer.feed_forward, Experts)
        return self.layer.feed_forward

    @property
    def full(self) -> bool:
        """The base weights are trained."""
        return self.training.adapter is None and self.tape.records

    @property
    def unquantized_itemsize(self) -> int:
        """Bytes an element of weights that are not codes: 4 after prepare_model_for_kbit_training."""
        upcast = self.quantization is not None and self.quantization.upcast_unquantized
        return FLOAT32 if upcast else self.weight_itemsize

    @property
    def norm_itemsize(self) -> int:
        """Bytes an element of norm weights: 4 after prepare_model_for_kbit_training."""
        scheme = self.training.quantization
        return FLOAT32 if scheme and (scheme.upcast_unquantized or scheme.upcast_norms) else self.training.dtype.bytes

    @property
    def use_cache(self) -> bool:
        """Keys and values are kept, which transformers does not do under checkpointing."""
        return self.training.use_cache and not self.training.gradient_checkpointing

    @property
    def several_sequences(self) -> bool:
        """The micro-batch has more than one sequence."""
        return self.training.micro_batch_size > 1

    @property
    def virtual_tokens(self) -> int:
        """`past_tokens` of one sequence."""
        return self.past_tokens // self.training.micro_batch_size


# ── linear layers ───────────────────────────────────────────────────────────────────────────────────────────────────


def dense(tape: Tape, x: Tensor, out_features: int, itemsize: int, trainable: bool, bias: bool = False) -> Tensor:
    """F.linear with a weight of `itemsize`: saves x only if the weight is trained.

    Under autocast, x and a wider weight are cast first. The cast of a trained weight is cached until autocast ends
    and is saved for the input's gradient; that of a frozen one lives as long as the graph needs it.
    """
    elements = x.width * out_features + (out_features if bias else 0)
    low = x if tape.autocast is None else tape.cast(x, tape.autocast)
    if tape.autocast is not None and itemsize != tape.autocast:
        return _dense_with_cast_weight(tape, low, out_features, elements, itemsize, trainable)
    out = tape.output(out_features, low.itemsize, x.needs_grad or trainable)
    if out.needs_grad:
        gradient = elements * itemsize if trainable else 0
        saved = (low,) if trainable else ()
        tape.record(
            (out,), (low,), saved, parameter_gradients=gradient, saves_constant=True, gives_views=not tape.flattened
        )  # fmt: skip
    return out


def _dense_with_cast_weight(
    tape: Tape, x: Tensor, out_features: int, elements: int, itemsize: int, trainable: bool
) -> Tensor:
    low = x.itemsize
    weight = tape.tensor(0, low, trainable, part=Part.ACTIVATIONS, fixed_elements=elements)
    if trainable:
        tape.record((weight,), (), parameter_gradients=elements * itemsize)
        if weight.storage is not None:
            tape.kept.append(weight.storage)
    out = tape.output(out_features, low, x.needs_grad or trainable)
    if out.needs_grad:
        saved = (x, weight) if trainable else (weight,)
        tape.record((out,), (x, weight), saved)
    return out


def base_linear(c: Context, x: Tensor, out_features: int, bias: bool = False) -> Tensor:
    """A linear layer of the base model, before any adapter."""
    if c.quantization is not None and not c.quantization.scheme.experts_only:
        return c.quantization.scheme.forward(c, x, out_features)
    return dense(c.tape, x, out_features, c.weight_itemsize, c.full, bias)


# ── norms ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def norm(c: Context, x: Tensor, name: str, heads: int = 1) -> Tensor:
    """The norm of the model's family, over the channels of each token or of each of its heads."""
    return LAYER_NORMS.get(c.model.family.norm, rms_norm)(c, x, name, heads)


def trains_norm(c: Context, name: str) -> bool:
    """Whether a norm is trained: with everything else, or by ln_tuning, which names some."""
    if c.adapter is None or c.adapter.peft_type != "ln_tuning":
        return c.full
    return c.tape.records and any(path == name or path.endswith(f".{name}") for path in c.targets)


def layer_norm(c: Context, x: Tensor, name: str, heads: int = 1) -> Tensor:
    """nn.LayerNorm: saves its input, a mean and a deviation of each token or head; autocast runs it in float32.

    LayerNorm1P casts to autocast's type instead. Source: modeling_nemotron.py of transformers 5.
    """
    tape, trained = c.tape, trains_norm(c, name)
    itemsize = tape.autocast if c.model.family.norm == "layer_norm_1p" else FLOAT32
    wide = x if tape.autocast is None or itemsize is None else tape.cast(x, itemsize)
    out = tape.tensor(x.width, wide.itemsize, x.needs_grad or trained)
    statistics = tape.tensor(2 * heads, FLOAT32)
    if out.needs_grad:
        gradient = 2 * x.width * c.norm_itemsize if trained else 0
        tape.record((out,), (wide,), (wide, statistics), parameter_gradients=gradient)
    return out


def unweighted_norm(c: Context, x: Tensor, name: str, heads: int = 1) -> Tensor:
    """LayerNorm without weight and bias, in float32, cast back. Source: modeling_olmo.py of transformers 5."""
    tape = c.tape
    wide = tape.cast(x, FLOAT32)
    out = tape.tensor(x.width, FLOAT32, x.needs_grad)
    statistics = tape.tensor(2 * heads, FLOAT32)
    if out.needs_grad:
        tape.record((out,), (wide,), (wide, statistics))
    return tape.cast(out, x.itemsize)


def centered_norm(c: Context, x: Tensor, name: str, heads: int = 1) -> Tensor:
    """LayerNorm in Python and float32, with a weight only: the centred stream is made, and saved, twice.

    Source: modeling_cohere.py of transformers 5.
    """
    tape = c.tape
    wide = tape.cast(x, FLOAT32)
    mean = tape.new((wide,), heads, FLOAT32)
    square = tape.power(_centered(tape, wide, mean))
    variance = tape.new((square,), heads, FLOAT32)
    del square
    again = _centered(tape, wide, mean)
    root = tape.unary(variance, "output")
    full = ((tape.part, again.per_token, 0),) if x.needs_grad else ()
    normed = tape.new((again, root), x.width, FLOAT32, (again, root), scratch=full)
    del again, wide
    return tape.cast(times_weight(c, normed, FLOAT32, trains_norm(c, name)), x.itemsize)


def _centered(tape: Tape, x: Tensor, mean: Tensor) -> Tensor:
    """x - mean: the gradient of the mean is made in full before it is summed to one number a token."""
    full = ((tape.part, x.per_token, 0),) if x.needs_grad else ()
    return tape.new((x, mean), x.width, FLOAT32, aliases=(x.key,), scratch=full)


def rms_norm(c: Context, x: Tensor, name: str, heads: int = 1) -> Tensor:
    """RMSNorm as the model's family writes it; each computes in float32 and differs in where it returns.

    Source: modeling_llama.py, modeling_gemma.py, modeling_olmo2.py and modeling_gpt_oss.py of transformers 5.
    """
    tape, itemsize, trained = c.tape, x.itemsize, trains_norm(c, name)
    if c.training.fused_kernels != "none":  # its backward writes over the incoming gradient
        return tape.new((x,), x.width, itemsize, (x,), aliases=(x.key,))
    normed = normalize(tape, tape.cast(x, FLOAT32), heads)
    if c.model.family.norm != "llama":
        weight_itemsize = FLOAT32 if c.model.family.norm == "gemma" else c.norm_itemsize
        normed = times_weight(c, normed, weight_itemsize, trained)
        return tape.cast(normed, itemsize)
    narrow = tape.cast(normed, itemsize)  # the float32 one is a variable until the function returns
    return times_weight(c, narrow, c.norm_itemsize, trained)


def normalize(tape: Tape, x: Tensor, heads: int) -> Tensor:
    """x * rsqrt(x.pow(2).mean(-1) + eps): saves x twice, for the power and for the product."""
    square = tape.power(x)
    mean = tape.new((square,), heads, FLOAT32)
    del square
    root = tape.unary(mean, "output")
    # The product's backward makes grad * x in full before summing it to one number a token.
    full = ((tape.part, x.per_token, 0),) if x.needs_grad else ()
    return tape.new((x, root), x.width, FLOAT32, (x, root), scratch=full)


def times_weight(c: Context, x: Tensor, weight_itemsize: int, trained: bool) -> Tensor:
    itemsize = max(x.itemsize, weight_itemsize)
    if not trained:
        return c.tape.new((x,), x.width, itemsize)
    out = c.tape.output(x.width, itemsize, True)
    scratch = ((c.tape.part, x.width * itemsize, 0),)
    c.tape.record((out,), (x,), (x,), scratch=scratch, parameter_gradients=x.width * c.norm_itemsize)
    return out


LAYER_NORMS = {
    "layer_norm": layer_norm, "layer_norm_1p": layer_norm, "unweighted": unweighted_norm, "centered": centered_norm,
}  # fmt: skip
"""By `Family.norm`; the others are RMSNorm."""


# ── activation functions ────────────────────────────────────────────────────────────────────────────────────────────


def activation(c: Context, x: Tensor) -> Tensor:
    """The MLP's activation function by its name in config.json."""
    name = c.model.hidden_act
    if name in ("gelu_new", "gelu_fast"):
        return _gelu_new(c.tape, x)
    if name == "quick_gelu":
        return c.tape.multiply(x, c.tape.unary(c.tape.scale(x), "output"))
    if name == "relu2":
        return c.tape.power(c.tape.unary(x, "output"))
    if name == "xielu":
        return _xielu(c, x)
    return c.tape.unary(x, "output" if name in ("relu", "tanh", "sigmoid") else "input")


def _gelu_new(tape: Tape, x: Tensor) -> Tensor:
    """0.5 * x * (1 + tanh(√(2/π) * (x + 0.044715 * x³))), written in Python: every step is a tensor of its own."""
    return tape.multiply(
        tape.scale(x), tape.scale(tape.unary(tape.scale(tape.add(x, tape.scale(tape.power(x)))), "output"))
    )


def _xielu(c: Context, x: Tensor) -> Tensor:
    """where(x > 0, ap * x * x + b * x, (expm1(min(x, e)) - x) * an + b * x), with trained ap and an of one element.

    Autocast runs softplus, which makes ap and an, and expm1 in float32, and what they meet becomes it.
    Source: XIELUActivation._xielu_python in transformers/activations.py.
    """
    tape, itemsize = c.tape, FLOAT32 if c.tape.autocast is not None else max(x.itemsize, c.norm_itemsize)
    condition = tape.tensor(x.width, 1)
    before_sum = ((tape.part, x.width * itemsize, 0),) if c.full else ()
    positive = tape.add(
        tape.multiply(tape.new((x,), x.width, itemsize, (x,) if c.full else (), scratch=before_sum), x),
        tape.new((x,), x.width, x.itemsize, saves_constant=True),
    )
    negative = tape.add(_raised_less(c, x, itemsize), tape.new((x,), x.width, x.itemsize, saves_constant=True))
    return tape.new((positive, negative), x.width, itemsize, (condition,))


def _raised_less(c: Context, x: Tensor, itemsize: int) -> Tensor:
    """(expm1(min(x, e)) - x) * an; backward makes expm1 + 1, and halves the gradient of min where both are equal."""
    tape, halved = c.tape, ((c.tape.part, x.per_token + x.width, 0),)
    plus_one = ((tape.part, x.width * itemsize, 0),) if x.needs_grad else ()
    least = tape.new((x,), x.width, x.itemsize, (x,), scratch=halved if x.needs_grad else ())
    wide = tape.cast(least, itemsize)
    raised = tape.new((wide,), x.width, itemsize, saves_output=True, scratch=plus_one)
    del least, wide
    difference = tape.new((raised, x), x.width, itemsize, aliases=(raised.key,))
    del raised
    saved, before_sum = ((difference,), ((tape.part, x.width * itemsize, 0),)) if c.full else ((), ())
    return tape.new((difference,), x.width, itemsize, saved, saves_constant=True, scratch=before_sum)
