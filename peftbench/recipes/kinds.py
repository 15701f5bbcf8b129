"""Kinds of values in other tools' files: how one goes into an option of ours, and how it goes out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe import ALL_LINEAR, DType
from peftbench.inputs.recipe.training import ATTENTIONS
from peftbench.recipes.settings import Settings

EVERY_LINEAR = (ALL_LINEAR,)
MEMORY_EFFICIENT = {
    "flash_attention_3": "flash_attention_2", "flash_attention_4": "flash_attention_2", "fa3": "flash_attention_2",
    "xformers": "sdpa", "sage": "sdpa", "flex_attention": "sdpa", "flash_attention_torch": "sdpa", "fp8": "sdpa",
}  # fmt: skip
"""Attentions that keep no scores either, and what they are priced as."""


class Kind(NamedTuple):
    """A kind of value, both ways."""

    take: Callable[[Settings, str, Any], Any]
    """From the settings, the setting's name and the tool's default; raises SpecError for a value that cannot be."""
    give: Callable[[Any], object] = lambda value: value


def attention_of(name: str, settings: Settings) -> str:
    """The attention that is priced, with a note where it is not the one that was asked for."""
    if name in ATTENTIONS:
        return name
    if name in MEMORY_EFFICIENT:
        settings.said.append(f"attention {name} is priced as {MEMORY_EFFICIENT[name]}.")
        return MEMORY_EFFICIENT[name]
    known = ", ".join((*ATTENTIONS, *MEMORY_EFFICIENT))
    raise settings.wrong("attention", name, f"one of {known}")


def dtype_of(settings: Settings, name: str, default: str | None) -> DType | None:
    """A dtype by its name, or by torch's: "bfloat16", "torch.bfloat16", "bf16"."""
    value = settings.word_or_none(name) or default
    if value is None:
        return None
    plain = value.removeprefix("torch.")
    plain = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(plain, plain)
    if plain not in set(DType):
        raise settings.wrong(name, value, f"one of {', '.join(DType)}")
    return DType(plain)


def targets_of(settings: Settings, name: str, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Targeted modules by name, or None for PEFT's own. Raises NoFormula for a pattern, which PEFT has to match."""
    names = settings.names(name)
    pattern = next((each for each in names or () if set("\\()[]*+|^$?") & set(each)), None)
    if pattern:
        raise NoFormula(f"{name} {pattern[:40]} is a regular expression, which has no formula.", "List the modules.")
    return names or default


COUNT = Kind(Settings.count)
FLAG = Kind(Settings.flag)
SHARE = Kind(Settings.share)
WORD = Kind(Settings.word)
DTYPE = Kind(dtype_of, lambda dtype: dtype.value)
ATTENTION = Kind(lambda settings, name, default: attention_of(settings.word(name, default), settings))
TARGETS = Kind(targets_of, list)
LIGER = Kind(lambda settings, name, default: "liger" if settings.flag(name, False) else default, "liger".__eq__)
