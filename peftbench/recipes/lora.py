"""What axolotl, LLaMA-Factory and TRL have in common: LoRA on named layers, attention by name, padded batches."""

from __future__ import annotations

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe.adapter import ALL_LINEAR, AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.training import ATTENTIONS
from peftbench.recipes.settings import Settings

EVERY_LINEAR = (ALL_LINEAR,)
MEMORY_EFFICIENT = {
    "flash_attention_3": "flash_attention_2", "flash_attention_4": "flash_attention_2", "fa3": "flash_attention_2",
    "xformers": "sdpa", "sage": "sdpa", "flex_attention": "sdpa", "flash_attention_torch": "sdpa", "fp8": "sdpa",
}  # fmt: skip
"""Attentions that keep no scores either, and what they are priced as."""


def attention_of(name: str, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """The attention that is priced, and a note where it is not the one that was asked for."""
    if name in ATTENTIONS:
        return name, ()
    if name in MEMORY_EFFICIENT:
        return MEMORY_EFFICIENT[name], (f"attention {name} is priced as {MEMORY_EFFICIENT[name]}.",)
    known = ", ".join((*ATTENTIONS, *MEMORY_EFFICIENT))
    raise settings.wrong("attention", name, f"one of {known}")


def checked_dtype(name: str, value: str, settings: Settings) -> DType:
    """A dtype by its name, or by torch's: "bfloat16", "torch.bfloat16", "bf16"."""
    plain = value.removeprefix("torch.")
    plain = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(plain, plain)
    if plain not in set(DType):
        raise settings.wrong(name, value, f"one of {', '.join(DType)}")
    return DType(plain)


def target_names(name: str, settings: Settings) -> tuple[str, ...] | None:
    """Targeted modules by name, or None for PEFT's own. Raises NoFormula for a pattern, which PEFT has to match."""
    names = settings.names(name)
    pattern = next((each for each in names or () if set("\\()[]*+|^$?") & set(each)), None)
    if pattern:
        raise NoFormula(f"{name} {pattern[:40]} is a regular expression, which has no formula.", "List the modules.")
    return names


def is_padded(packed: bool, micro_batch_size: int) -> bool:
    """Sequences of different length are padded to the longest of their batch; one alone needs no mask."""
    return not packed and micro_batch_size > 1


def targets(adapter: AdapterSpec, every: str) -> str | list[str]:
    """Names for a file; `every` is the tool's word for all linear layers."""
    if adapter.target_modules == EVERY_LINEAR:
        return every
    return list(adapter.target_modules or ())
