"""Settings that no formula reads: which are known not to matter for memory, and what is reported of the others.

known_settings.json lists every setting of the tools by what becomes of it here, with the version that was gone
through: "read" is priced, "not priced" costs or saves memory by the way that stands before it, "refused" belongs to
another kind of training, "no effect" moves no byte. A tool that takes over another's settings says so in "with".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from peftbench.base.errors import NoFormula
from peftbench.recipes.settings import Settings, Unread

KNOWN_SETTINGS = os.path.join(os.path.dirname(__file__), "known_settings.json")

_SECTIONS: Mapping[str, str] = {
    "TRAINING_ARGUMENTS": "TrainingArguments",
    "QUANTIZATION": "BitsAndBytesConfig",
    "bnb_config_kwargs": "BitsAndBytesConfig",
    "deepspeed": "DeepSpeed",
    "deepspeed_config_file": "DeepSpeed",
    "deepspeed_config": "accelerate deepspeed_config",
    "zero_optimization": "zero_optimization",
    "offload_optimizer": "offload",
    "offload_param": "offload",
    "fsdp_config": "FSDP",
    "accelerator_config": "accelerator_config",
    "gradient_accumulation_kwargs": "gradient_accumulation_kwargs",
    "gradient_checkpointing_kwargs": "checkpointing",
    "activation_checkpointing_kwargs": "checkpointing",
}
"""Settings that hold others, and whose the others are."""

_OFF: tuple[object, ...] = (False, 0, "no", "", "none", "default", "auto", [], {})
"""What a setting holds that is written out but off, or left to the tool."""

_NEAR = 0.8
"""How alike an unknown name and a known one must be to be taken for a slip; single letters of long names are above."""


class Known(NamedTuple):
    """The settings of one tool."""

    names: frozenset[str]
    costs: Mapping[str, str]
    """What those that are not priced do."""
    refused: frozenset[str]


@lru_cache
def known(tool: str) -> Known:
    """What is known of a tool's settings; nothing of a tool that is not in the file."""
    with open(KNOWN_SETTINGS, encoding="utf-8") as file:
        return _known(tool, json.load(file))


def _known(tool: str, tables: Mapping[str, Any]) -> Known:
    table = tables.get(tool, {})
    costs = {name: why for why, names in table.get("not priced", {}).items() for name in names}
    refused = frozenset(table.get("refused", ()))
    names = frozenset((*table.get("read", ()), *table.get("no effect", ()), *costs, *refused))
    for other in table.get("with", ()):
        more = _known(other, tables)
        names, costs = names | more.names, {**more.costs, **costs}
    return Known(names, costs, refused)


def check_kind(settings: Settings) -> None:
    """Raise NoFormula for a setting of a training that is not modelled: pairs, rollouts, a second model."""
    for name in sorted(known(settings.tool).refused & settings.values.keys()):
        if settings.given(name) is not None:
            what = f"{name} of the {settings.tool} file is for preference or reward training, which is not modelled."
            raise NoFormula(what, "Supervised fine-tuning is: plan that, and expect more.")


def unread(settings: Settings) -> Iterator[str | Unread]:
    """What reading said, and a note for each setting that is on, was not read, and may matter; sections too."""
    yield from settings.said
    for section in settings.sections.values():
        yield from unread(section)
    for name in settings.left():
        if settings.values[name] not in _OFF:
            yield from _note(settings, name)


def _note(settings: Settings, name: str) -> Iterator[str | Unread]:
    table = known(_whose(settings))
    full, plain = f"{settings.prefix}{name}", _plain(settings, name)
    if plain in table.costs:
        yield Unread(full, table.costs[plain], settings.values[name])
    elif plain not in table.names:
        what = f"{full} of the {settings.tool} file is unknown here and is not priced: it may change the memory."
        yield f"{what} {_slip(plain, table.names)}".rstrip()


def _whose(settings: Settings) -> str:
    """The tool, or the kind of section that the settings stand in."""
    return _SECTIONS.get(settings.prefix.rstrip(".").rpartition(".")[2], settings.tool)


def _plain(settings: Settings, name: str) -> str:
    """The name without the "fsdp_" that some tools put before each of FSDP's options."""
    return name.removeprefix("fsdp_") if _whose(settings) == "FSDP" else name


def _slip(name: str, names: frozenset[str]) -> str:
    from difflib import get_close_matches  # only an unknown name should pay for the import

    near = get_close_matches(name, sorted(names), n=1, cutoff=_NEAR)
    return f"Did you mean {near[0]}?" if near else ""
