"""Every field of every PEFT type changed in a saved adapter_config.json: what PEFT refuses, is refused; what it trains,
is counted."""

from __future__ import annotations

import dataclasses
import math
from enum import Enum
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

from peftbench.base.errors import SpecError  # noqa: E402
from peftbench.decide.adapter_config import adapter_of, check_model, fields_of  # noqa: E402
from peftbench.estimate.peft_types.table import METHODS  # noqa: E402
from peftbench.estimate.peft_types.tensors import trainable_parameters  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

TINY = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
SPEC = read_config({"model_type": "llama", **TINY}, "tiny", "")
NEEDED: dict[str, dict[str, Any]] = {
    "LORA": {"r": 4}, "ADALORA": {"init_r": 6, "total_step": 10}, "OFT": {"oft_block_size": 16}, "HIRA": {"r": 4},
    "LOHA": {"r": 4}, "LOKR": {"r": 2}, "RANDLORA": {"r": 5}, "FOURIERFT": {"n_frequency": 100},
    "WAVEFT": {"n_frequency": 70}, "GLORA": {"r": 4}, "HRA": {"r": 4}, "MISS": {"r": 4}, "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4}, "C3A": {"block_size": 16}, "DELORA": {"r": 4}, "GRALORA": {"r": 4}, "DEFT": {"r": 4},
    "PSOFT": {"r": 4}, "PEANUT": {"r": 4}, "VBLORA": {"r": 2, "num_vectors": 8, "vector_length": 16}, "POLY": {"r": 4},
    "LILY": {"r": 4}, "TRAINABLE_TOKENS": {"token_indices": [1, 2, 3]},
    "ADAPTION_PROMPT": {"adapter_len": 5, "adapter_layers": 2},
    "CPT": {"cpt_token_ids": [1] * 8, "cpt_mask": [1] * 8, "cpt_tokens_type_mask": [1, 2, 3, 4] * 2},
    **{kind: {"num_virtual_tokens": 9}
       for kind in ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE")},
}  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 2, 7, 1000, 8.0, 0.5, -0.5, math.inf, 10**30, "64", "false", "", "none", "x", [],
    ["q_proj"], ["nope"], {}, {"q_proj": 4}, {"q_proj": "x"}, [0], "all-linear",
)  # fmt: skip
FREE_FOR_US = ("inference_mode", "runtime_config")
"""A file of either mode is trained; the other is never in a file."""
BY_DEFAULT = ("LORA", "IA3", "OFT", "PROMPT_TUNING")
OTHERS = sorted({kind.upper() for kind in METHODS} - {*BY_DEFAULT, "ADALORA"})
"""AdaLoRA trains one number more of each matrix on a base in 16 bit, which test_peft_counts.py has."""


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else sorted(value) if isinstance(value, set) else value


def saved(kind: str) -> dict[str, Any]:
    """As save_pretrained writes it, once PEFT has put the adapter on a model."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **NEEDED.get(kind, {}))
    peft.get_peft_model(base_model(), config)
    return {name: plain(value) for name, value in config.to_dict().items()}


def base_model() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY))


def trained_by_peft(config: dict[str, Any]) -> int | None:
    """How many parameters, or None where PEFT refuses the file, the adapter or a forward pass."""
    try:
        loaded = peft.PeftConfig.from_peft_type(**config)
        loaded.inference_mode, loaded.task_type = False, "CAUSAL_LM"
        model = peft.get_peft_model(base_model(), loaded)
        several = config["peft_type"] in ("POLY", "MULTITASK_PROMPT_TUNING")
        tasks = {"task_ids": torch.zeros(1, dtype=torch.long)} if several else {}
        tokens = torch.ones(1, 4, dtype=torch.long)
        model(input_ids=tokens, labels=tokens, **tasks)
        return int(model.get_nb_trainable_parameters()[0])
    except Exception:
        return None


def trained_by_us(config: dict[str, Any]) -> int | None:
    try:
        adapter = adapter_of(config)
        check_model(config, SPEC)
        return trainable_parameters(SPEC, adapter)
    except SpecError:
        return None


def check_fields(kind: str) -> None:
    good = saved(kind)
    wrong = []
    for name in fields_of(kind):
        for value in VALUES:
            config = {**good, name: value}
            ours = trained_by_us(config) if name not in FREE_FOR_US else None
            if ours is not None and ours != (theirs := trained_by_peft(config)):
                wrong.append((name, value, ours, theirs))
    assert not wrong
    assert trained_by_us(good) == trained_by_peft(good)


@pytest.mark.parametrize("kind", BY_DEFAULT)
def test_a_changed_field_is_priced_as_peft_has_it_or_refused(kind: str) -> None:
    check_fields(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_a_changed_field_of_any_type(kind: str) -> None:
    check_fields(kind)


def test_the_table_has_the_fields_and_defaults_of_the_installed_peft() -> None:
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        known = dict(fields_of(plain(kind)))
        for field in dataclasses.fields(config):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            found = known.pop(field.name)
            assert found == plain(default) or field.name == "runtime_config", (kind, field.name)
        assert not known
