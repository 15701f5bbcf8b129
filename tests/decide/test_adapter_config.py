"""adapter_config.json: exact types and ranges, PEFT's own refusals, and nothing that decides a size is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import answer, refusal, run

from peftbench.base.errors import NoFormula, SpecError
from peftbench.decide.adapter_config import adapter_of, unknown_fields
from peftbench.inputs.recipe import AdapterSpec

LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
PLAN = ("plan", "--model", "8b", "--gpu", "t4", "--adapter-config")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"r": "64"}, "r must be a whole number, not '64'"),
        ({"r": 8.0}, "r must be a whole number"),
        ({"r": True}, "r must be a whole number"),
        ({"r": 0}, "at least 1"),
        ({"r": None}, "r must be a whole number"),
        ({"r": 10**12}, "at most"),
        ({"use_dora": "false"}, "use_dora must be true or false, not 'false'"),
        ({"use_rslora": 1}, "use_rslora must be true or false"),
        ({"lora_dropout": 5.0}, "less than 1"),
        ({"lora_dropout": "0.1"}, "lora_dropout must be a finite number"),
        ({"lora_dropout": None}, "lora_dropout must be a finite number"),
        ({"lora_alpha": 0}, "at least 1"),
        ({"lora_alpha": "16"}, "lora_alpha must be a whole number"),
        ({"lora_bias": "x"}, "lora_bias must be true or false"),
        ({"bias": "foo"}, "bias cannot be 'foo'"),
        ({"bias": None}, "bias cannot be None"),
        ({"alpha_pattern": "x"}, "alpha_pattern must be an object"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj must be"),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS' is not priced"),
        ({"target_modules": []}, "name no module"),
        ({"target_modules": ["all-linear"]}, "name no module"),
        ({"target_modules": ["q_proj", 3]}, "target_modules[1] must be text"),
        ({"peft_type": "lora"}, "Did you mean LORA?"),
        ({"peft_type": "LORAX"}, "unknown PEFT type 'LORAX'"),
        ({"peft_type": "VERA", "target_modules": []}, "name no module"),
        ({"peft_type": "BOFT", "boft_block_size": float("inf")}, "boft_block_size must be a whole number"),
        ({"peft_type": "BOFT", "boft_block_num": 8}, "boft_block_size or boft_block_num"),
        ({"peft_type": "OFT", "r": 8}, "oft_block_size or r"),
        ({"peft_type": "ADALORA"}, "needs total_step"),
        ({"peft_type": "ADALORA", "total_step": 10, "tinit": 5, "tfinal": 5}, "leave none"),
        ({"peft_type": "ADALORA", "total_step": 10, "beta1": 1.0}, "beta1 must be"),
        ({"peft_type": "SUPERTUNING", "r": None, "lora_alpha": 8}, "together with r"),
        ({"peft_type": "SUPERTUNING", "r": None, "sparsity": 1}, "less than 1"),
        ({"peft_type": "PROMPT_TUNING"}, "num_virtual_tokens is missing, and PEFT has no default"),
        ({"peft_type": "IA3", "feedforward_modules": ["down_proj"]}, "among target_modules"),
        ({"peft_type": "TRAINABLE_TOKENS", "target_modules": None, "token_indices": [1, 1]}, "twice"),
        ({"peft_type": "CPT", "task_type": "CAUSAL_LM", "cpt_token_ids": [1, 2], "cpt_mask": [1]}, "differ in length"),
        ({"peft_type": "CPT", "cpt_token_ids": [1, 2]}, "task_type does not say so"),
    ],
)
def test_what_peft_refuses_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as error:
        adapter_of({**LORA, **changed})
    assert said in error.value.what and error.value.hint and not isinstance(error.value, NoFormula)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank_pattern", {"q_proj": 4}),
        ("layers_to_transform", 0),
        ("layer_replication", [[0, 1]]),
        ("exclude_modules", ["q_proj"]),
        ("modules_to_save", ["lm_head"]),
        ("target_parameters", ["x"]),
        ("trainable_token_indices", [1]),
        ("megatron_config", {"a": 1}),
        ("bias", "all"),
        ("use_qalora", True),
        ("init_lora_weights", "eva"),
        ("kasa_config", {}),
        ("target_modules", ".*q_proj"),
    ],
)
def test_what_only_peft_works_out_is_named(name: str, value: Any) -> None:
    with pytest.raises(NoFormula, match=name) as error:
        adapter_of({**LORA, name: value})
    assert error.value.hint == "Use --dry-run."


@pytest.mark.parametrize("peft_type", ["VERA", "HIRA", "RANDLORA", "DEFT", "GRALORA", "TINYLORA"])
def test_a_dropout_that_no_formula_has_is_named(peft_type: str) -> None:
    name = f"{peft_type.lower()}_dropout"
    with pytest.raises(NoFormula, match=name):
        adapter_of({"peft_type": peft_type, name: 0.1})


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        ({"peft_type": "LORA"}, AdapterSpec(r=8, alpha=8)),
        (
            {**LORA, "lora_alpha": 3, "lora_dropout": 0, "use_dora": None, "init_lora_weights": "pissa_niter_4"},
            AdapterSpec(r=8, alpha=3, target_modules=("q_proj",)),
        ),
        ({**LORA, "target_modules": "ALL-LINEAR"}, AdapterSpec(r=8, alpha=8, target_modules=("all-linear",))),
        ({"peft_type": "OFT", "r": 8, "oft_block_size": 0}, AdapterSpec(peft_type="oft", r=8)),
        ({"peft_type": "OFT", "oft_block_size": 16}, AdapterSpec(peft_type="oft", options=(("oft_block_size", 16),))),
        (
            {"peft_type": "CPT", "task_type": "CAUSAL_LM", "cpt_token_ids": [5] * 7},
            AdapterSpec(peft_type="cpt", options=(("num_virtual_tokens", 7),)),
        ),
        (
            {"peft_type": "TRAINABLE_TOKENS", "token_indices": [2, 4], "target_modules": "model.embed_tokens"},
            AdapterSpec(peft_type="trainable_tokens", options=(("token_indices", "2,4"),)),
        ),
        (
            {"peft_type": "IA3", "target_modules": ["k_proj", "up_proj"], "feedforward_modules": ["up_proj"]},
            AdapterSpec(
                peft_type="ia3", target_modules=("k_proj", "up_proj"), options=(("feedforward_modules", "up_proj"),)
            ),
        ),
    ],
)  # fmt: skip
def test_the_spec_has_pefts_defaults(config: dict[str, Any], spec: AdapterSpec) -> None:
    assert adapter_of(config) == spec


def test_unknown_fields_are_named(tmp_path: Path) -> None:
    config = {**LORA, "lora_rank": 64, "of_a_later_version": None}
    (note,) = unknown_fields(config)
    assert note.endswith("ignores: lora_rank, of_a_later_version.")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(config))
    assert "lora_rank" in answer(*PLAN, str(path))
    arguments = tmp_path / "a.json"
    arguments.write_text('{"per_device_train_batch_size": 2, "optim": "adamw_torch"}')
    assert "lora_rank" in answer("plan", "--model", "8b", "--gpu", "t4", "--from", str(arguments), "--from", str(path))


def test_what_has_no_formula_is_planned_alone(tmp_path: Path) -> None:
    arguments, path = tmp_path / "a.json", tmp_path / "adapter_config.json"
    arguments.write_text('{"per_device_train_batch_size": 2, "optim": "adamw_torch"}')
    path.write_text(json.dumps({**LORA, "rank_pattern": {"q_proj": 4}}))
    said = refusal("plan", "--model", "8b", "--gpu", "t4", "--from", str(arguments), "--from", str(path))
    assert "rank_pattern" in said and "--adapter-config FILE --dry-run" in said


def test_a_prompt_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text('{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20, "token_dim": 2048}')
    assert "token_dim 2048 of the adapter is not that of" in refusal(*PLAN, str(path))
    assert run("plan", "--model", "1b", "--gpu", "t4", "--adapter-config", str(path)).exit_code == 0


def test_a_script_is_never_written_of_what_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"per_device_train_batch_size": 2, "optim": "adamw_torch"}')
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "BOFT", "boft_block_size": Infinity}')
    files = (word for name in ("a.json", "adapter_config.json") for word in ("--from", str(tmp_path / name)))
    assert "boft_block_size must be a whole number" in refusal("recipe", "--model", "8b", *files)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"peft_type": "LORA", "init_lora_weights": "mica"}, {"init_lora_weights": "mica"}),
        ({"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"}, {}),
        ({"peft_type": "MISS", "r": 64, "init_weights": "bat"}, {"init_weights": "bat"}),
        ({"peft_type": "MISS", "init_weights": "mini", "mini_r": 64}, {"init_weights": "mini", "mini_r": 64}),
        ({"peft_type": "GLORA", "config_A_B": "vector", "config_C": "lora"}, {"config_A_B": "vector"}),
        ({"peft_type": "PSOFT", "psoft_svd": "lowrank", "ab_svd_init": "pissa_init"}, {"psoft_svd": "lowrank"}),
        ({"peft_type": "TINYLORA", "weight_tying": 1.0}, {"weight_tying": 1.0}),
        ({"peft_type": "LILY", "stride_A": 2}, {"stride_A": 2}),
        ({"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []},
         {"feedforward_modules": "none"}),
    ],
)  # fmt: skip
def test_variants_that_decide_a_size_are_read(config: dict[str, Any], options: dict[str, Any]) -> None:
    assert dict(adapter_of(config).options) == options
