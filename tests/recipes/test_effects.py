"""What settings that are not priced do to a verdict: trained ones take it away, bounded ones widen the band."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import run

import peftbench
from peftbench.decide.verdict import Effect
from peftbench.recipes.effects import BOUNDS, LESS, MORE, effect_of, unpriced
from peftbench.recipes.settings import Unread
from peftbench.recipes.unread import KNOWN_SETTINGS

with open(KNOWN_SETTINGS, encoding="utf-8") as file:
    DOES = {does for table in json.load(file).values() for does in table["not priced"]}
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in Path(KNOWN_SETTINGS).parent.rglob("*.py") if path.name != "effects.py"
)

AXOLOTL = {
    "base_model": "meta-llama/Llama-3.2-1B", "adapter": "lora", "sequence_len": 1024, "micro_batch_size": 1,
    "lora_r": 8, "lora_target_linear": True, "flash_attention": True, "lora_mlp_kernel": False,
}  # fmt: skip
LLAMA_FACTORY = {
    "model_name_or_path": "meta-llama/Llama-3.1-8B", "stage": "sft", "finetuning_type": "full", "cutoff_len": 2048,
    "per_device_train_batch_size": 1,
}  # fmt: skip


def plan_of(folder: Path, values: dict[str, Any], gpu: str, *words: str) -> dict[str, Any]:
    path = folder / "run.yml"
    path.write_text(json.dumps(values))
    result = run("plan", "--from", str(path), "--gpu", gpu, *words, "--format", "json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["plans"][0]
    return found


def test_every_word_is_used_and_trained_settings_take_more() -> None:
    assert not [does for does in LESS | MORE | BOUNDS.keys() if does not in DOES and does not in SOURCES]
    assert BOUNDS.keys() <= MORE
    trains = [does for does in DOES if does.startswith(("trains and", "trains rows", "adapts parameters", "may add"))]
    assert len(trains) == 4 and all(effect_of(does) is Effect.MORE for does in trains)


@pytest.mark.parametrize(
    ("setting", "value", "fit"),
    [
        ("lora_modules_to_save", ["embed_tokens", "lm_head"], None),
        ("lora_target_parameters", ["mlp.experts.gate_up_proj"], None),
        ("lora_model_dir", "./before", None),
        ("plugins", ["mine.Plugin"], None),
        ("neftune_noise_alpha", 5, "fits"),
        ("tokens", ["<a>", "<b>"], "fits"),
        ("activation_offloading", True, "fits"),
        ("lora_mlp_kernel", True, "fits"),
    ],
)
def test_a_verdict_that_may_be_turned_is_taken_away(tmp_path: Path, setting: str, value: object, fit: str) -> None:
    plan = plan_of(tmp_path, {**AXOLOTL, setting: value}, "rtx4090")
    assert plan["verdict"]["fit"] == fit
    assert len(plan["unpriced"]) == 1 and (fit is None) == (plan["verdict"]["ran_out"] is None)


def test_the_first_line_names_what_is_not_priced_and_check_fails(tmp_path: Path) -> None:
    plan_of(tmp_path, {**AXOLOTL, "lora_modules_to_save": ["lm_head"]}, "rtx4090")
    result = run("plan", "--from", str(tmp_path / "run.yml"), "--gpu", "rtx4090", "--check", "risky")
    assert result.exit_code == 1
    assert result.stdout.startswith("no verdict: lora on rtx4090 needs ")
    assert "without what is not priced: lora_modules_to_save" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("setting", "gpu", "fit"),
    [("use_galore", "a100-80gb", None), ("use_galore", "rtx4090", "does_not_fit"), ("use_badam", "a100-80gb", None)],
)
def test_what_saves_memory_may_make_it_fit_unless_weights_alone_are_too_much(
    tmp_path: Path, setting: str, gpu: str, fit: str | None
) -> None:
    assert plan_of(tmp_path, {**LLAMA_FACTORY, setting: True}, gpu)["verdict"]["fit"] == fit


def test_smoothing_in_trl_widens_the_band(tmp_path: Path) -> None:
    values = {"model_name_or_path": "meta-llama/Llama-3.2-1B", "use_peft": True, "max_length": 1024}
    plain = plan_of(tmp_path, values, "rtx4090")
    plan = plan_of(tmp_path, {**values, "label_smoothing_factor": 0.1}, "rtx4090")
    assert not plain["unpriced"] and plan["unpriced"][0]["most_bytes"] > 0


def test_a_bound_widens_the_band() -> None:
    plan = peftbench.plan("1b", "t4", "lora", sequence_length=1024)
    assert plan.verdict is not None and plan.judged == plan.verdict
    found = unpriced([Unread("label_smoothing_factor", "keeps the probabilities of every token as well", 0.1)], plan)
    wider = plan._replace(unpriced=found)
    assert found[0].most_bytes == 1024 * 128_256 * 8
    assert wider.judged is not None
    assert wider.judged.high_bytes == plan.verdict.high_bytes + 1024 * 128_256 * 8
