"""Prompt-learning adapters: how many tokens they add to the sequence, or keys and values to each layer.

Prompts are embeddings before the sequence, so every layer sees longer sequences. Prefixes are keys and values that
PEFT passes as past_key_values. Source: PeftModelForCausalLM.forward in peft/peft_model.py, 0.21.
"""

from __future__ import annotations

from math import prod

from peftbench.base.errors import SpecError
from peftbench.estimate.peft_types.prompts import p_tuning
from peftbench.estimate.peft_types.tensors import options_of
from peftbench.estimate.tape.autograd import Storage, Tensor
from peftbench.estimate.tape.modules import Context
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec

PROMPTS = ("prompt_tuning", "p_tuning", "multitask_prompt_tuning", "cpt")
PREFIXES = ("prefix_tuning", "cartridge")


def is_prefix(adapter: AdapterSpec | None) -> bool:
    """Whether the adapter is keys and values before the sequence's own."""
    return adapter is not None and adapter.peft_type in PREFIXES


def is_prompt(adapter: AdapterSpec | None) -> bool:
    """Whether the adapter is embeddings before the sequence's own."""
    return adapter is not None and adapter.peft_type in PROMPTS


def virtual_tokens(adapter: AdapterSpec | None) -> int:
    """num_virtual_tokens of a prompt or prefix; 0 for other adapters."""
    if adapter is None or not (is_prompt(adapter) or is_prefix(adapter)):
        return 0
    return int(options_of(adapter)["num_virtual_tokens"])


def encoder_copies_bytes(model: ModelSpec, adapter: AdapterSpec | None, autocast_itemsize: int | None) -> int:
    """Copies of a prompt encoder's layers in autocast's type: cached, and saved for the gradients of their inputs."""
    if adapter is None or adapter.peft_type != "p_tuning" or autocast_itemsize in (None, adapter.dtype.bytes):
        return 0
    _, *layers = p_tuning(model, options_of(adapter))  # the first is the embedding of the prompt
    return sum(map(prod, layers)) * (autocast_itemsize or 0)


def stream_length(training: TrainingSpec) -> int:
    """Positions of a sequence that go through the layers."""
    return training.sequence_length + (virtual_tokens(training.adapter) if is_prompt(training.adapter) else 0)


def stream_tokens(training: TrainingSpec) -> int:
    """Positions of a micro-batch that go through the layers."""
    return training.micro_batch_size * stream_length(training)


def past_tokens(training: TrainingSpec) -> int:
    """Keys of a prefix in a micro-batch; raises SpecError where it would have no effect."""
    if not is_prefix(training.adapter):
        return 0
    if training.gradient_checkpointing:
        raise SpecError(
            "prefixes do not work with gradient checkpointing: PEFT refuses it, and transformers drops the prefix.",
            "Turn gradient checkpointing off (--no-gradient-checkpointing).",
        )
    return training.micro_batch_size * virtual_tokens(training.adapter)


def put_before(c: Context, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """DynamicCache.update with a prefix in it: keys and values of prefix and sequence are copied together.

    The prefix's own gradients wait for those of all layers.
    """
    keys, values = (_joined(c, x) for x in (key, value))
    c.cache += [tensor.storage for tensor in (keys, values) if tensor.storage is not None]
    return keys, values


def _joined(c: Context, x: Tensor) -> Tensor:
    elements = c.past_tokens * x.width
    nothing = Storage(c.tape.ledger, c.tape.part, 0)
    past = Tensor(nothing, 0, x.itemsize, True, c.tape.next_key(), elements)
    c.tape.record((past,), (), parameter_gradients=elements * x.itemsize)
    joined = c.tape.tensor(x.width, x.itemsize, True, fixed_elements=elements)
    c.tape.record((joined,), (past, x), aliases=(past.key, x.key))
    return joined


def repeated(c: Context, x: Tensor) -> Tensor:
    """repeat_kv of keys that have a prefix: several heads are copied, a single one is expanded."""
    width = c.attention.query_size
    if x.width == width:
        return x
    elements = x.fixed_elements * width // x.width
    out = c.tape.tensor(width, x.itemsize, True, fixed_elements=elements)
    if c.attention.key_value_heads == 1:
        out = Tensor(x.storage, width, x.itemsize, True, out.key, elements)
    c.tape.record((out,), (x,))
    return out
