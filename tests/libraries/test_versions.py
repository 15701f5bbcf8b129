"""An architecture that came after the installed transformers is told with the version that has it."""

from __future__ import annotations

import pytest

from peftbench.libraries.refusal import Refused
from peftbench.libraries.versions import FIRST_VERSIONS, newer_transformers


@pytest.mark.parametrize(
    ("model_type", "hint"),
    [
        ("qwen3_5", "transformers 5.2.0 has it. Run: pip install 'transformers>=5.2.0'."),
        ("apertus1p5", "transformers 5.24.0 has it. Run: pip install 'transformers>=5.24.0'."),
        ("lama", ""),
        ("", ""),
    ],
)
def test_the_first_version_of_an_architecture_is_looked_up(model_type: str, hint: str) -> None:
    assert newer_transformers(model_type) == hint


def test_the_table_has_each_type_once() -> None:
    with open(FIRST_VERSIONS, encoding="utf-8") as file:
        names = [line.split()[0] for line in file]
    assert names == sorted(set(names))


def test_the_installed_transformers_being_too_old_is_said_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    from peftbench.libraries.model import model_config

    kept = {name: kind for name, kind in auto.CONFIG_MAPPING_NAMES.items() if name != "lfm2"}
    monkeypatch.setattr(auto, "CONFIG_MAPPING", kept)
    monkeypatch.setattr("transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", {"llama": "x"})
    with pytest.raises(Refused, match="no model of type lfm2") as refused:
        model_config({"model_type": "lfm2"})
    assert refused.value.hint == "transformers 5.0.0 has it. Run: pip install 'transformers>=5.0.0'."
