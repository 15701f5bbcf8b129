"""Bytes an optimizer keeps for each trained tensor, pages off the card, and needs for a moment in its step.

Sources: torch 2.13 `torch/optim/*.py`, bitsandbytes 0.50 `optim/optimizer.py` and `optim/ademamix.py`,
transformers 5.23 `optimization.py` (Adafactor) and `trainer_optimizer.py` (which class each name stands for).
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from math import prod
from typing import NamedTuple

from peftbench.base.errors import NoFormula, SpecError, did_you_mean
from peftbench.estimate.parts.tensors import TensorGroup, total_bytes
from peftbench.inputs.recipe import DType

FLOAT32_BYTES = 4
MIN_8BIT_NUMEL = 4096
"""bitsandbytes' `min_8bit_size`: smaller tensors keep 32-bit states."""
STATE_BLOCK = 256
"""Elements of an 8-bit state that share one float32 absmax."""
QMAP_BYTES = 256 * FLOAT32_BYTES
"""A quantization map of 256 float32 values; one signed and one unsigned map serve all tensors."""
MIN_PAGED_NUMEL = 100_000
"""bitsandbytes pages states from 1e5 elements on."""


class TorchRule(NamedTuple):
    """As in `torch.optim`: states in the parameter's dtype, and lists that a foreach step holds at once."""

    states: int
    foreach_lists: int = 0
    loop_tensors: int | None = None
    """What the step holds of one tensor where torch goes through them one by one: on a CPU. None: foreach there too."""


class BitsandbytesRule(NamedTuple):
    """A bitsandbytes class: states in float32 or 8 bit, perhaps in managed memory; no step temporary."""

    states: int
    bits: int
    paged: bool = False


class AdafactorRule(NamedTuple):
    """transformers' Adafactor: a float32 row and column of second moments for each matrix."""


Rule = TorchRule | BitsandbytesRule | AdafactorRule

RULES: dict[str, Rule] = {
    "adamw_torch": TorchRule(states=2, foreach_lists=1, loop_tensors=2),  # exp_avg_sq_sqrt; the denominator
    "adamw_torch_fused": TorchRule(states=2),
    "sgd": TorchRule(states=0),  # the Trainer passes no momentum
    "adagrad": TorchRule(states=1, foreach_lists=2, loop_tensors=1),  # std and numerator
    "rmsprop": TorchRule(states=1, foreach_lists=1, loop_tensors=1),  # avg
    "schedule_free_adamw": TorchRule(states=2, foreach_lists=1),  # schedulefree 1.4: denom
    "schedule_free_radam": TorchRule(states=2, foreach_lists=1),
    "schedule_free_sgd": TorchRule(states=1),
    "adafactor": AdafactorRule(),
    "adamw_bnb_8bit": BitsandbytesRule(states=2, bits=8),
    "adamw_8bit": BitsandbytesRule(states=2, bits=8),  # an alias
    "paged_adamw_8bit": BitsandbytesRule(states=2, bits=8, paged=True),
    "paged_adamw_32bit": BitsandbytesRule(states=2, bits=32, paged=True),
    "ademamix": BitsandbytesRule(states=3, bits=32),  # two averages of the gradient, one of its square
    "ademamix_8bit": BitsandbytesRule(states=3, bits=8),
    "paged_ademamix_32bit": BitsandbytesRule(states=3, bits=32, paged=True),
    "paged_ademamix_8bit": BitsandbytesRule(states=3, bits=8, paged=True),
    "lion_32bit": BitsandbytesRule(states=1, bits=32),
    "lion_8bit": BitsandbytesRule(states=1, bits=8),
    "paged_lion_32bit": BitsandbytesRule(states=1, bits=32, paged=True),
    "paged_lion_8bit": BitsandbytesRule(states=1, bits=8, paged=True),
    "rmsprop_bnb": BitsandbytesRule(states=1, bits=32),
    "rmsprop_bnb_8bit": BitsandbytesRule(states=1, bits=8),
    "rmsprop_bnb_32bit": BitsandbytesRule(states=1, bits=32),
}

OPTIMIZERS = tuple(RULES)
"""The names of `TrainingArguments.optim` that can be priced."""

NOT_DERIVED = (
    "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit",
    "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw",
    "apollo_adamw", "apollo_adamw_layerwise", "stable_adamw",
)  # fmt: skip
"""The other names of `TrainingArguments.optim`, from packages whose states and steps are not derived here."""


class OptimizerBytes(NamedTuple):
    """What one optimizer takes; sizes of tensors, before the allocator rounds them.

    Scalars are left out: step counters (4 bytes a tensor, on the card for fused AdamW only), Adafactor's RMS.
    """

    state_bytes: int
    """On the card from the first step on."""
    paged_bytes: int
    """In CUDA managed memory: the driver moves it between host and card; torch's allocator never sees it."""
    step_temporary_bytes: int
    """Alive during the step only."""


def check_optimizer(name: str) -> None:
    """Raise SpecError for a name that cannot be priced."""
    if name in RULES:
        return
    hint = f"Choose one of {', '.join(OPTIMIZERS)}."
    if name in NOT_DERIVED:
        raise NoFormula(f"the optimizer {name!r} belongs to another package, and its memory is not modelled.", hint)
    raise SpecError(f"unknown optimizer {name[:40]!r}. {did_you_mean(name[:40], OPTIMIZERS)}".rstrip(), hint)


@lru_cache(maxsize=4096)
def optimizer_bytes(
    tensors: tuple[TensorGroup, ...], optimizer: str, by_trainer: bool = False, on_cpu: bool = False
) -> OptimizerBytes:
    """Price an optimizer over the trained tensors, in the order in which the model has them.

    The Trainer has bitsandbytes keep 32-bit states of embeddings, whatever the optimizer is called.

    Raises SpecError for a name of TrainingArguments.optim that is unknown or not modelled.
    """
    check_optimizer(optimizer)
    rule = RULES[optimizer]
    if isinstance(rule, TorchRule):
        return _torch_bytes(tensors, rule, on_cpu)
    if isinstance(rule, BitsandbytesRule):
        return _bitsandbytes_bytes(tensors, rule, by_trainer)
    return _adafactor_bytes(tensors)


def states_of(optimizer: str) -> int:
    """How many states it has of each tensor."""
    rule = RULES[optimizer]
    return 2 if isinstance(rule, AdafactorRule) else max(rule.states, 1)


def steps_by_lists(optimizer: str) -> bool:
    """Whether its temporaries are lists with a tensor for each that is trained, and not one block."""
    return isinstance(RULES[optimizer], TorchRule)


def _torch_bytes(tensors: tuple[TensorGroup, ...], rule: TorchRule, on_cpu: bool) -> OptimizerBytes:
    """States are `zeros_like(parameter)`; a foreach step computes on lists of all tensors at once.

    `_multi_tensor_adam` holds one list, the root of exp_avg_sq, in the dtype of the state: full fine-tuning
    in bfloat16 peaks at 2 weights + 2 gradients + 2 + 2 states + 2 = 10 bytes a parameter. On a CPU torch does not
    choose foreach by itself (_default_to_fused_or_foreach in torch/optim/optimizer.py).
    """
    size = total_bytes(tensors)
    temporary = rule.foreach_lists * size
    if on_cpu and rule.loop_tensors is not None:
        temporary = rule.loop_tensors * max((group.tensor_numel * group.dtype.bytes for group in tensors), default=0)
    return OptimizerBytes(rule.states * size, 0, temporary)


def _bitsandbytes_bytes(tensors: tuple[TensorGroup, ...], rule: BitsandbytesRule, by_trainer: bool) -> OptimizerBytes:
    """Sum tensor by tensor: small states stay in 32 bit, large ones of a paged optimizer leave the card.

    The absmax of a paged 8-bit state stays on the card. Source of the Trainer's exception: create_optimizer in
    transformers/trainer.py, which registers every nn.Embedding with optim_bits 32.
    """
    on_card = paged = 0
    any_8bit = False
    for group in tensors:
        numel = group.tensor_numel
        excepted = by_trainer and group.is_embedding
        eight_bit = rule.bits == 8 and numel >= MIN_8BIT_NUMEL and not excepted
        values = group.count * rule.states * numel * (1 if eight_bit else FLOAT32_BYTES)
        if rule.paged and numel >= MIN_PAGED_NUMEL:
            paged += values
        else:
            on_card += values
        if eight_bit:
            any_8bit = True
            on_card += group.count * rule.states * -(-numel // STATE_BLOCK) * FLOAT32_BYTES
    maps = min(rule.states, 2) * QMAP_BYTES if any_8bit else 0
    return OptimizerBytes(on_card + maps, paged, 0)


def _adafactor_bytes(tensors: tuple[TensorGroup, ...]) -> OptimizerBytes:
    """States are float32: a vector as it is, a matrix as one value for each row and each column.

    The step goes tensor by tensor. At its widest it holds the squared gradient twice (`grad**2`, `+ eps`),
    for a 16-bit parameter also float32 copies of the gradient and the parameter, and still the update of
    the tensor before.
    """
    state = sum(group.count * _adafactor_state_numel(group.shape) for group in tensors) * FLOAT32_BYTES
    return OptimizerBytes(state, 0, max(_adafactor_step_bytes(tensors), default=0))


def _adafactor_state_numel(shape: tuple[int, ...]) -> int:
    """Elements of exp_avg_sq, or of its row and column factors from two dimensions on."""
    if len(shape) < 2:
        return prod(shape)
    return prod(shape[:-1]) + prod(shape[:-2] + shape[-1:])


def _adafactor_step_bytes(tensors: Iterable[TensorGroup]) -> Iterable[int]:
    """Bytes of the widest moment of each tensor's step."""
    sizes = list(tensors)
    before = chain([0], (group.tensor_numel for group in sizes))
    for group, previous in zip(sizes, before, strict=False):
        numel = group.tensor_numel
        copies = 2 if group.dtype is DType.FLOAT32 else 4
        yield FLOAT32_BYTES * (copies * numel + (numel if group.count > 1 else previous))
