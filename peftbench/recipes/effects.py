"""What settings that are not priced do to the memory, by the words of known_settings.json that say it of them.

Some are bounded: they widen the band. What may take any amount of memory, or save it, takes a verdict away that it may
turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from peftbench.base.units import MIB
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import Effect, Unpriced
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part
from peftbench.recipes.settings import Unread

OF_THE_BATCH = frozenset({
    "fuses operations, which keeps fewer activations",
    "recomputes inside fused adapter kernels, which keeps fewer activations",
    "halves the micro-batch until it fits",
    "moves activations to the host",
    "moves checkpoints to the host",
    "keeps the checkpoints on the host or disk",
    "runs the MLP in tiles",
    "cuts the loss into chunks",
    "removes the padding of a batch",
    "replaces layers by fused kernels",
    "replaces layers, checkpointing and loss by Unsloth's",
    "splits sequences over GPUs",
})  # fmt: skip
"""What saves at most what the tokens of a batch take."""
OF_THE_TRAINED = frozenset({
    "adapts some layers only",
    "trains a part of the weights only",
    "trains a block at a time",
    "keeps the optimizer states of a projection",
    "keeps the states of restarted adapters on the host",
})  # fmt: skip
"""What saves at most what gradients and optimizer take, and what a batch does where it need not be kept for them."""
LESS = OF_THE_BATCH | OF_THE_TRAINED | frozenset({
    "moves layers to the host",
    "moves modules to the host",
    "moves states to the host in its own way",
    "frees or moves what is not used",
    "empties the allocator's cache as it trains",
    "frees cached memory (--dry-run with --torch-empty-cache-steps shows it)",
    "removes rows of embedding and head",
    "splits layers over GPUs",
    "quantizes the experts of a mixture",
})  # fmt: skip
MORE = frozenset({
    "trains and stores whole modules",
    "trains rows of the embedding",
    "adapts parameters that are not linear layers",
    "repeats layers",
    "adds a copy of the embedded tokens",
    "keeps some activations under checkpointing",
    "keeps the probabilities of every token as well",
    "keeps the logits in float32 as well",
    "keeps the router's scores",
    "keeps a second, frozen model for its loss",
    "keeps a second copy of the weights in each node",
    "keeps a part on the GPU",
    "keeps a mask for each pair of tokens",
    "keeps the weights in 16 bit as well",
    "keeps norms, embeddings and head in float32",
    "leaves some modules in 16 bit",
    "leaves some modules whole",
    "may add rows to embedding and head",
    "trains with simulated quantization",
    "trains on images or sound, whose encoder and tokens count",
    "generates text as it trains",
    "evaluates at another length",
    "evaluates more sequences at a time than it trains",
    "is the size of a buffer",
    "gathers a layer ahead",
    "gathers more than a layer at a time",
    "gathers whole modules at once",
    "decides which weights are never split",
    "splits the model over some of the GPUs only",
})  # fmt: skip
"""What is in neither may do either."""

_BATCH = (Part.CHECKPOINTS, Part.ACTIVATIONS, Part.LOGITS, Part.KV_CACHE, Part.SLACK)
_TRAINED = (Part.ADAPTERS, Part.GRADIENTS, Part.ACCUMULATED, Part.OPTIMIZER, Part.OPTIMIZER_TEMPORARIES)

Bound = Callable[[ModelSpec, TrainingSpec, Any], int]
ROWS = 64
"""The most that a vocabulary is rounded up by."""
ROW_BYTES = 32
"""Bytes for each element of a trained row, in embedding and head: weight, gradient and two states in float32, twice."""


def _token_rows(model: ModelSpec, recipe: TrainingSpec, value: object) -> int:
    """New rows and their logits, in float32 and with a gradient."""
    rows = len(value) if isinstance(value, (list, dict)) else ROWS
    return rows * (model.hidden_size * ROW_BYTES + recipe.tokens * 12)


def _buffer(_model: ModelSpec, _recipe: TrainingSpec, value: object) -> int:
    """Two buffers of MiB below 10,000, which is how DDP counts them, and of float32 elements above."""
    size = int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 40 else 0
    return 2 * size * (MIB if size < 10_000 else 4)


def _evaluated(model: ModelSpec, recipe: TrainingSpec, value: object) -> int:
    """Logits of the sequences that training has not, in 16 bit and in float32."""
    more = max(0, value - recipe.micro_batch_size) if isinstance(value, int) else 0
    return more * recipe.sequence_length * model.vocab_size * 6


BOUNDS: dict[str, Bound] = {
    "adds a copy of the embedded tokens": lambda model, recipe, _: recipe.tokens * model.hidden_size * 8,
    "keeps the probabilities of every token as well": lambda model, recipe, _: recipe.tokens * model.vocab_size * 8,
    "keeps the logits in float32 as well": lambda model, recipe, _: recipe.tokens * model.vocab_size * 8,
    "keeps the router's scores": lambda model, recipe, _: (
        recipe.tokens * model.num_experts * model.num_hidden_layers * 8
    ),
    "keeps a mask for each pair of tokens": lambda _, recipe, __: recipe.tokens * recipe.sequence_length * 8,
    "trains rows of the embedding": _token_rows,
    "may add rows to embedding and head": _token_rows,
    "evaluates more sequences at a time than it trains": _evaluated,
    "is the size of a buffer": _buffer,
}


def unpriced(found: Iterable[Unread], plan: Plan) -> tuple[Unpriced, ...]:
    """What each setting does to this plan, and at most how much where that is known."""
    return tuple(Unpriced(each.setting, effect_of(each.does), _most(each, plan)) for each in found)


def effect_of(does: str) -> Effect:
    """By the words that say what a setting does."""
    return Effect.LESS if does in LESS else Effect.MORE if does in MORE else Effect.EITHER


def _most(each: Unread, plan: Plan) -> int | None:
    if each.does in OF_THE_BATCH | OF_THE_TRAINED:
        parts = _BATCH if each.does in OF_THE_BATCH else (*_BATCH, *_TRAINED)
        return sum(plan.profile.bytes_of(part) for part in parts)
    bound = BOUNDS.get(each.does)
    if bound is None or plan.variable is None:
        return None
    model, recipe, _ = plan.variable
    return bound(model, recipe, each.value)
