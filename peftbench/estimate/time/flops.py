"""What one training step asks of a card, whatever the card: arithmetic, bytes moved, and kernels launched.

A pass is one trip through the layers. Forward is one, the recomputation of checkpointing another, and backward counts
as two: gradients of inputs and of weights are as many products as the forward pass has, each.
"""

from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.parts.base_weights import quantized_weights, weight_bytes
from peftbench.estimate.parts.optimizer import RULES, BitsandbytesRule, TorchRule
from peftbench.estimate.parts.tensors import total_numel
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix, stream_length, stream_tokens, virtual_tokens
from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.estimate.training import trained_tensors
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import Role, Weight, built_by, weights_of
from peftbench.inputs.recipe import DType, TrainingSpec

HALF_BYTES = 2
FLOAT32_BYTES = 4
FLASH_BACKWARD = 2.5
"""Products of the backward pass of fused attention by those of forward: five instead of two (Dao 2023, §3)."""
LOGIT_BYTES = 34
"""Bytes moved for one logit: 2 written, 2 + 4 to cast, 4 + 4 for log_softmax, 4 + 4 for its gradient, 4 + 2 to cast
back, 2 + 2 for two products (the cross-entropy of transformers and torch)."""
FUSED_LOGIT_BYTES = 10
"""2 written, 2 + 2 for loss and gradient in place, 2 + 2 for two products: one kernel that stays in 16 bit."""
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
    attention_flops: int
    """By fused attention, which leaves out what the causal mask hides."""
    scores: int
    """Scores of all layers, heads and pairs, masked ones included: what unfused attention writes."""
    stream_bytes: int
    """Inputs and outputs of all linear layers, once a pass: what elementwise kernels between them read and write."""
    adapter_bytes: int
    """The same of the layers that carry an adapter."""
    built_bytes: int
    """Matrices that an adapter builds, as large as its weights."""
    built_blocks: int
    """Blocks of which it builds them, each copied by a kernel of its own."""
    cast_bytes: int
    """Float32 weights that autocast casts in every pass, and their gradients."""
    logits: int
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
    if not model.num_experts:
        return dense
    return dense + experts(model) * model.num_experts_per_tok // model.num_experts


@lru_cache(maxsize=256)
def experts(model: ModelSpec) -> int:
    """Weights of all experts."""
    return sum(w.total for w in weights_of(model) if w.role is Role.EXPERTS or w.of_expert)


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
    into_weights = multiplied(model) if full else 0 if virtual else total_numel(trained)
    products = multiplied(model) * (2 + recomputed) + into_weights * (1 if full else passes)
    products -= recomputed * _not_recomputed(model, training, carriers)
    head = model.vocab_size * model.embedding_size
    length, before = stream_length(training), virtual if is_prefix(training.adapter) else 0
    pairs = (_pairs(model, length) + model.num_hidden_layers * before * length) * training.micro_batch_size
    built = built_work(model, training, tokens)
    return StepWork(
        tokens=training.tokens,
        layers=model.num_hidden_layers,
        passes=passes,
        matmul_flops=2 * tokens * (products + head * (3 if full else 2)) + built.flops,
        attention_flops=round(4 * pairs * model.query_size * (1 + recomputed + FLASH_BACKWARD)),
        scores=tokens * (before + length) * model.num_attention_heads * model.num_hidden_layers,
        stream_bytes=HALF_BYTES * tokens * _width(model) * passes,
        adapter_bytes=HALF_BYTES * tokens * _passed(model, carriers) * (passes - 1),
        built_bytes=built.bytes,
        built_blocks=built.blocks,
        cast_bytes=_cast_bytes(model, training),
        logits=tokens * model.vocab_size,
        weight_bytes=HALF_BYTES * sum(w.total for w in weights_of(model) if w.role in (Role.LINEAR, Role.EXPERTS))
        * (passes if full else passes - 1),
        adapter_launches=_adapter_tensors(model, training) * passes,
        quantized_launches=sum(w.count for w in quantized) * (passes - 1),
        dequantized_weights=sum(w.total for w in quantized) * (passes - 1),
        optimizer_bytes=_optimizer_bytes(model, training),
        trained_bytes=sum(group.bytes for group in trained),
        gathered_bytes=weight_bytes(model, training.dtype, training.quantization).total_bytes,
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


def logit_bytes(training: TrainingSpec, fused: bool) -> int:
    """Bytes moved for each logit by the loss of the recipe."""
    return FUSED_LOGIT_BYTES if fused or training.loss not in ("transformers", "transformers-4") else LOGIT_BYTES


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


def _pairs(model: ModelSpec, length: int) -> int:
    """Pairs of query and key that causal attention needs in one sequence, summed over the layers."""
    sliding = len(model.sliding_layers)
    window = min(length, model.sliding_window or length)
    within = window * length - window * window // 2
    return (model.num_hidden_layers - sliding) * length * length // 2 + sliding * within


@lru_cache(maxsize=256)
def _width(model: ModelSpec) -> int:
    """Inputs and outputs of all linear layers that a token passes."""
    dense = sum(_in_and_out(w) for w in weights_of(model) if w.role is Role.LINEAR and not w.of_expert)
    if not model.num_experts:
        return dense
    sparse = model.num_hidden_layers - len(model.dense_layers)
    each = 2 * model.hidden_size + 3 * model.moe_intermediate_size
    return dense + sparse * model.num_experts_per_tok * each


def _passed(model: ModelSpec, carriers: tuple[Weight, ...]) -> int:
    """Inputs and outputs of these layers that a token passes: of experts apart, those that it is sent to."""
    split = sum(_in_and_out(w) for w in carriers if w.of_expert)
    met = split * model.num_experts_per_tok // model.num_experts if split else 0
    return sum(map(_in_and_out, carriers)) - split + met


def _in_and_out(weight: Weight) -> int:
    return weight.count * sum(weight.shape[-2:]) if len(weight.shape) > 1 else 0


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
