"""What one training step asks of a card, whatever the card: arithmetic, bytes moved, and kernels launched.

A pass is one trip through the layers. Forward is one, the recomputation of checkpointing another, and backward counts
as two: gradients of inputs and of weights are as many products as the forward pass has, each.
"""

from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.parts.mixing import Mixing, mixings_of
from peftbench.estimate.parts.optimizer import RULES, BitsandbytesRule, TorchRule
from peftbench.estimate.parts.tensors import TensorGroup, total_numel
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix, stream_length, stream_tokens, virtual_tokens
from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.estimate.training import trained_tensors
from peftbench.inputs.model.parts import Experts
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role, Weight
from peftbench.inputs.model.weights import built_by, networks_of, weights_of
from peftbench.inputs.recipe import DType, TrainingSpec

HALF_BYTES = 2
FLOAT32_BYTES = 4
FLASH_BACKWARD = 2.5
"""Products of the backward pass of fused attention by those of forward: five instead of two (Dao 2023, §3)."""
FOREACH_ACCESSES = 20
"""Times that torch's AdamW with foreach reads or writes an element, in its ten kernels: decay 2, lerp 3, mul 2,
addcmul 3, sqrt 2, div 2, add 2, addcdiv 4 (torch/optim/adamw.py, _multi_tensor_adamw)."""
CLIP_ACCESSES = 3
"""The Trainer's max_grad_norm reads every gradient for the norm, then reads and writes it to scale."""
ACCUMULATED_ACCESSES = 3
"""A later micro-batch reads its gradient and the sum, and writes the sum."""
CAST_BYTES = FLOAT32_BYTES + HALF_BYTES
"""A float32 weight is read, and written in 16 bit; its gradient the other way round."""

BUILDS_WEIGHTS = ("loha", "lokr", "hira", "randlora", "fourierft", "waveft", "boft", "oft")
"""Adapters whose forward pass builds a matrix as large as the weight that it changes; DoRA does so for its norm."""
BUILT_BYTES = 24
"""Bytes moved for an element of such a matrix in a pass: written in float32 (4), scaled (8), cast (6), added (6)."""
BOFT_PRODUCTS = 3
"""Dense products of BOFT's square matrix in a forward pass, twice with the permutation and once with the identity, and
in backward as many, because neither of those has a gradient (peft/tuners/boft/layer.py, Linear.forward)."""


class StepWork(NamedTuple):
    """One micro-step of one GPU, and the bytes of the optimizer step that follows the last of them."""

    tokens: int
    """Tokens of the sequences; those of a prompt adapter go through the layers beside them."""
    layers: int
    passes: int
    """3, or 4 with checkpointing."""
    matmul_flops: int
    float32_flops: int
    """Those of `matmul_flops` whose factors are float32."""
    attention_flops: int
    """By fused attention, which leaves out what the causal mask hides."""
    unfused_flops: int
    """By products of whole matrices of scores, masked pairs included."""
    built_bytes: int
    """Matrices that an adapter builds, as large as its weights."""
    built_blocks: int
    """Blocks of which it builds them, each copied by a kernel of its own."""
    cast_bytes: int
    """Float32 weights that autocast casts in every pass, and their gradients."""
    weight_bytes: int
    """Base weights, 16 bit where they are dequantized, read in each pass."""
    adapter_launches: int
    quantized_launches: int
    dequantized_weights: int
    """Weights written out in 16 bit, once a pass (backward: once)."""
    optimizer_bytes: int
    trained_bytes: int
    """Gradients of one GPU without sharding."""
    gathered_bytes: int
    """The base weights as they are stored: what sharded GPUs send each other."""


@lru_cache(maxsize=256)
def multiplied(model: ModelSpec) -> int:
    """Weights that one token meets in the layers: of the experts only those that it is sent to."""
    dense = sum(w.total for w in weights_of(model) if w.role in (Role.LINEAR, Role.ROUTER) and not w.of_expert)
    return dense + sum(
        sum(w.total for w in _experts(model) if w.layers == layers) * part.per_token // part.number
        for part, layers in networks_of(model).items()
        if isinstance(part, Experts)
    )


@lru_cache(maxsize=256)
def experts(model: ModelSpec) -> int:
    """Weights of all experts."""
    return sum(w.total for w in _experts(model))


def _experts(model: ModelSpec) -> tuple[Weight, ...]:
    return tuple(w for w in weights_of(model) if w.role is Role.EXPERTS or w.of_expert)


@lru_cache(maxsize=8192)
def step_work(model: ModelSpec, training: TrainingSpec) -> StepWork:
    """Count what a step of this recipe does; raises SpecError for an adapter that PEFT would refuse."""
    model = built_by(model, training.transformers)
    tokens, full = stream_tokens(training), training.adapter is None
    recomputed = int(training.gradient_checkpointing)
    passes = 3 + recomputed
    trained = trained_tensors(model, training)
    carriers = adapted_weights(model, training.adapter) if training.adapter else ()
    quantized = quantized_weights(model, training.quantization)
    virtual = virtual_tokens(training.adapter)
    products = _Products(
        base=multiplied(model) * (2 + full + recomputed) - recomputed * _not_recomputed(model, training, carriers),
        adapter=0 if full or virtual else total_numel(trained) * passes,
        head=model.vocab_size * model.embedding_size * (2 + full),
    )
    length, before = stream_length(training), virtual if is_prefix(training.adapter) else 0
    mixings = mixings_of(model).items()
    fused = sum(mixing.pair_products * _pairs(mixing, layers, length, before) for mixing, layers in mixings)
    unfused = (before + length) * sum(mixing.pair_products * layers for mixing, layers in mixings)
    kept = sum(mixing.token_products * layers for mixing, layers in mixings)
    built = built_work(model, training, tokens)
    return StepWork(
        tokens=training.tokens,
        layers=model.num_hidden_layers,
        passes=passes,
        matmul_flops=2 * tokens * (sum(products) + kept * passes) + built.flops,
        float32_flops=2 * tokens * _in_float32(training, trained, products),
        attention_flops=round(2 * training.micro_batch_size * fused * (1 + recomputed + FLASH_BACKWARD)),
        unfused_flops=2 * tokens * unfused * passes,
        built_bytes=built.bytes,
        built_blocks=built.blocks,
        cast_bytes=_cast_bytes(model, training),
        weight_bytes=HALF_BYTES * sum(w.total for w in weights_of(model) if w.role in (Role.LINEAR, Role.EXPERTS))
        * (passes if full else passes - 1),
        adapter_launches=_adapter_tensors(model, training) * passes,
        quantized_launches=sum(w.count for w in quantized) * (passes - 1),
        dequantized_weights=sum(w.total for w in quantized) * (passes - 1),
        optimizer_bytes=_optimizer_bytes(model, training),
        trained_bytes=sum(group.bytes for group in trained),
        gathered_bytes=weight_bytes(model, training.dtype, training.quantization).total_bytes,
    )  # fmt: skip


class _Products(NamedTuple):
    """Weights that a token is multiplied with in all passes, of the layers, of the adapter and of the head."""

    base: int
    adapter: int
    head: int


def _in_float32(training: TrainingSpec, trained: tuple[TensorGroup, ...], products: _Products) -> int:
    """Products whose factors are float32: none under autocast, else those of float32 weights.

    bitsandbytes multiplies in its compute type. PEFT keeps adapters in float32 beside 16-bit weights, and casts their
    inputs; prepare_model_for_kbit_training casts the head.
    """
    if training.autocast:
        return 0
    scheme = training.quantization
    base = scheme.compute_dtype if scheme and scheme.four_bit else training.dtype
    upcast = training.dtype is DType.FLOAT32 or (scheme is not None and scheme.upcast_unquantized)
    adapter = any(group.dtype is DType.FLOAT32 for group in trained)
    return sum(
        number
        for number, wide in zip(products, (base is DType.FLOAT32, adapter, upcast), strict=True)
        if wide
    )  # fmt: skip


class BuiltWork(NamedTuple):
    """What building matrices in every forward pass takes in one micro-step.

    Its time hardly depends on how many tokens there are, and no published time was fitted to it.
    """

    bytes: int = 0
    flops: int = 0
    blocks: int = 0
    """Diagonal blocks that are copied into a matrix, each by a kernel of its own."""


def builds_weights(training: TrainingSpec) -> bool:
    """Whether the adapter's time depends on kernels over whole weights, which no published time was fitted to."""
    adapter = training.adapter
    return adapter is not None and (adapter.use_dora or adapter.peft_type in BUILDS_WEIGHTS)


def built_work(model: ModelSpec, training: TrainingSpec, tokens: int) -> BuiltWork:
    """What building takes in forward, recomputation and backward; `tokens` go through the layers."""
    if training.adapter is None or not builds_weights(training):
        return BuiltWork()
    built = 2 + int(training.gradient_checkpointing)
    carriers = adapted_weights(model, training.adapter)
    if training.adapter.peft_type == "boft":
        found = adapter_tensors(model, training.adapter, training.dtype)
        # torch.block_diag copies one block after the other. Shapes of the blocks: (1, blocks, side, side).
        blocks = sum(group.count * group.shape[1] for group in found if len(group.shape) == 4)
        return _boft(carriers, built, tokens, built * blocks)
    return BuiltWork(BUILT_BYTES * built * sum(w.total for w in carriers))


def _boft(carriers: tuple[Weight, ...], built: int, tokens: int, blocks: int) -> BuiltWork:
    """A square matrix as wide as the layer's input, by which the input is multiplied before the layer's own weight.

    That last product has gradients of both its factors: one product forward, two backward.
    """
    sides = [(w.count, w.shape[-1]) for w in carriers]
    square = sum(count * side**2 for count, side in sides)
    cubed = sum(count * side**3 for count, side in sides)
    return BuiltWork(
        bytes=BUILT_BYTES * built * square,
        flops=2 * built * BOFT_PRODUCTS * cubed + 2 * (built + 1) * tokens * square,
        blocks=blocks,
    )


def _cast_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Autocast keeps a cast weight until its context ends, which recomputation enters anew; 4-bit weights have none."""
    if not training.autocast or training.dtype is not DType.FLOAT32 or training.quantization:
        return 0
    weights = sum(w.total for w in weights_of(model) if w.role in (Role.LINEAR, Role.ROUTER, Role.EXPERTS))
    casts = 1 + int(training.gradient_checkpointing) + int(training.adapter is None)
    return CAST_BYTES * casts * (weights + model.vocab_size * model.embedding_size)


def _not_recomputed(model: ModelSpec, training: TrainingSpec, carriers: tuple[Weight, ...]) -> int:
    """Weights of the layer's last product, which backward does not need the output of.

    torch's non-reentrant checkpointing stops recomputing at the last tensor that backward asks for (early_stop in
    torch/utils/checkpoint.py); an adapter on that layer and dropout come after it, and need tensors of their own.
    """
    layout = model.family.layout
    last = layout.mlp + layout.down
    if training.use_reentrant or model.residual_dropout or any(w.path == last for w in carriers):
        return 0
    return sum(w.total for w in weights_of(model) if w.role is Role.LINEAR and w.path == last)


def _pairs(mixing: Mixing, layers: int, length: int, before: int) -> int:
    """Pairs of query and key that causal attention needs in one sequence and so many layers, prefix included."""
    window = mixing.seen(length)
    within = layers * length * length // 2 if mixing.window is None else layers * (window * length - window**2 // 2)
    return within + layers * before * length


def _adapter_tensors(model: ModelSpec, training: TrainingSpec) -> int:
    """Those that add kernels to the forward pass; norms that are trained in place do not."""
    if training.adapter is None or training.adapter.peft_type == "ln_tuning":
        return 0
    return sum(group.count for group in adapter_tensors(model, training.adapter, training.dtype))


def _optimizer_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Bytes that clipping, accumulating and the optimizer read and write in one optimizer step."""
    accesses = CLIP_ACCESSES + ACCUMULATED_ACCESSES * (training.gradient_accumulation_steps - 1)
    return sum(
        group.numel * (accesses * group.dtype.bytes + update_bytes(training.optimizer, group.dtype.bytes))
        for group in trained_tensors(model, training)
    )


def update_bytes(optimizer: str, each: int) -> int:
    """Bytes that the update moves for one parameter of `each` bytes: it, its gradient, and every state twice."""
    rule = RULES.get(optimizer)
    if isinstance(rule, TorchRule):
        return each * (FOREACH_ACCESSES if rule.foreach_lists else 3 + 2 * rule.states)
    if isinstance(rule, BitsandbytesRule):
        return 3 * each + 2 * rule.states * rule.bits // 8
    return 3 * each + 2 * FLOAT32_BYTES
