"""Find a model by Hub id, short name, size alias, or the path of a config.json."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from peftbench.base.errors import CatalogError, SpecError, did_you_mean
from peftbench.base.visible import written
from peftbench.catalog.checkpoints.entry import CatalogModel, all_names, find_entry, list_models
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.spec import ModelSpec, OtherModel

__all__ = ["CatalogModel", "NamedConfig", "find_config", "find_model", "list_models"]

UNKNOWN_POSITIONS = 1 << 30
"""Where a config.json has no max_position_embeddings, as those of recurrent models."""

_HUB_ID = r"[\w.-]+/[\w.-]+"
_SIZE = r"[\d.x]+[bm]"
"""What stands for a size in the catalogue, and could have stood for another model of it."""


class NamedConfig(NamedTuple):
    """A config.json, the name of its model, and where it was found."""

    config: Mapping[str, object]
    name: str
    source: str
    notes: tuple[str, ...] = ()
    """What is to be known of a name that says another model than it spells."""

    @property
    def spec(self) -> ModelSpec:
        """The model by formula; raises SpecError for an architecture that has none."""
        return read_config(self.config, self.name, self.source)

    @property
    def other(self) -> OtherModel:
        """The model by name, for a dry run."""
        return OtherModel(
            name=self.name,
            source=self.source,
            model_type=str(self.config.get("model_type"))[:60],
            max_position_embeddings=self._positions(),
            learned_positions=self._learns_positions(),
        )

    def _learns_positions(self) -> bool:
        """By the formula; else all that does not say how it rotates."""
        try:
            return self.spec.learned_positions > 0
        except SpecError:
            return not any(name.startswith(("rope_", "rotary_")) for name in self.config)

    def _positions(self) -> int:
        """Those of the formula, which knows how each architecture spells them; else by the usual name."""
        try:
            return self.spec.max_position_embeddings
        except SpecError:
            positions = self.config.get("max_position_embeddings")
            return positions if type(positions) is int and positions > 0 else UNKNOWN_POSITIONS


def find_model(text: str) -> ModelSpec:
    """Return the model that `text` names by formula; raises as find_config and NamedConfig.spec do."""
    return find_config(text).spec


def find_config(text: str) -> NamedConfig:
    """Return the config.json that `text` names; `name` says which model was meant.

    In this order: an explicit path (./, /, ~ or .json), a name of the catalogue in any case, a file or folder
    that exists, a Hub id. A folder named like a catalogue entry is reached with "./" in front.
    Raises CatalogError.
    """
    if not isinstance(text, str):
        raise CatalogError(f"a model is a name, not {written(text)}.", "As in 8b, or the path of a config.json.")
    text = text.strip()
    if text.endswith(".json") or text.startswith((".", "/", "~")):
        return _from_path(text)
    known = find_entry(text)
    if known:
        return _from_catalogue(known, text)
    if text and os.path.exists(text):
        return _from_path(text)
    if re.fullmatch(_HUB_ID, text, re.ASCII):
        from peftbench.catalog.hub import fetch_config

        config, now = fetch_config(text, _near(text))
        notes = (f"{text} is called {now} now.",) if now.lower() != text.lower() else ()
        return NamedConfig(config, now, f"https://huggingface.co/{now}", notes)
    raise CatalogError(
        f"unknown model {text[:80]!r}.",
        f"{_near(text)}`peftbench models` lists all {len(list_models())}; "
        "the path of a config.json or of its folder works too.",
    )


def _from_path(text: str) -> NamedConfig:
    from peftbench.catalog.config_file import read_config_file  # most plans name a model of the catalogue

    path = os.path.expanduser(text)
    config, path = read_config_file(path)
    folder, file = os.path.split(os.path.abspath(path))
    name = os.path.basename(folder) if file == "config.json" else file.removesuffix(".json")
    return NamedConfig(config, name or file, path)


def _from_catalogue(known: CatalogModel, name: str) -> NamedConfig:
    """The checkpoint under its own id, and a note where the name leaves open that it is this one."""
    if re.fullmatch(_SIZE, name, re.IGNORECASE):
        note = f"{name} stands for {known.id}; `peftbench models {name}` lists others of that size."
        return NamedConfig(known.config, known.id, known.source, (note,))
    if not known.holds_quantized(name):
        return NamedConfig(known.config, known.id, known.source)
    from peftbench.catalog.checkpoints.quantized import quantized_config

    config, note = quantized_config(known, name)
    return NamedConfig(config, known.id, known.source, (note,))


def _near(text: str) -> str:
    hint = did_you_mean(text[:80], all_names())
    return f"{hint} " if hint else ""
