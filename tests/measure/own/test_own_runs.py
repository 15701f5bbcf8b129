"""A user's own script with the callback, and the function that measures one recipe."""

from types import SimpleNamespace

import pytest
import torch
from run_records import TINY

import peftbench
from peftbench.base.errors import MeasureError, PeftbenchError, SpecError
from peftbench.check.runs.comparison import compare
from peftbench.inputs.recipe import DType, QuantizationSpec
from peftbench.measure.own.recipe import _quantization
from peftbench.memory import Phase
from peftbench.records.environment import Outcome
from peftbench.records.file import read_results

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def trainer(folder, adapter=None, **arguments):
    """What people write."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TINY, "vocab_size": 4096}))
    if adapter:
        model = peft.get_peft_model(model, adapter)
    tokens = torch.arange(64)
    row = {"input_ids": tokens, "labels": tokens, "attention_mask": torch.ones_like(tokens)}
    options = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=4, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_steps=1, **arguments,
    )  # fmt: skip
    return transformers.Trainer(model=model, args=options, train_dataset=[row] * 8)


@pytest.mark.parametrize(
    ("adapter", "arguments", "method"),
    [
        (None, {"optim": "adamw_torch"}, "full"),
        (peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"), {"bf16": True}, "lora"),
        (peft.IA3Config(task_type="CAUSAL_LM"), {}, "ia3"),
    ],
)
def test_two_lines_record_a_run(tmp_path, capsys, adapter, arguments, method):
    own = trainer(tmp_path, adapter, **arguments)
    own.add_callback(peftbench.PeftbenchCallback(str(tmp_path / "run.jsonl")))
    own.train()
    (record,) = read_results(tmp_path / "run.jsonl", print).runs
    found, recipe = record.measurement, record.case.recipe
    assert found.outcome is Outcome.OK and len(found.losses) == 4 and len(found.step_s) == 2 and found.samples
    assert (recipe.method, recipe.tokens, recipe.dtype, recipe.padded) == (method, 128, DType.FLOAT32, False)
    assert recipe.autocast is bool(arguments.get("bf16"))
    assert {p.phase for p in found.phases if p.step == 1} == {Phase.FORWARD, Phase.BACKWARD, Phase.STEP}
    assert f"{method} of own model" in capsys.readouterr().out
    (comparison,) = compare([record])
    assert abs(comparison.errors.allocated) <= (0.03 if not recipe.autocast else 0.1)


def test_a_file_of_something_else_is_refused_before_the_training(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(MeasureError, match="holds something else than records"):
        peftbench.PeftbenchCallback(str(tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "kept"


WRONG = [{"path": 5}, {"path": ""}, {"path": "a\0b"}, {"path": b"x"}, {"path": ["a"]}, {"path": "/dev/zero"},
         {"steps": "x"}, {"steps": 0}, {"steps": True}, {"steps": None}, {"steps": 10**400}]  # fmt: skip


@pytest.mark.parametrize("given", WRONG, ids=lambda given: next(iter(given)))
def test_a_wrong_argument_is_refused_before_the_training(given):
    with pytest.raises(PeftbenchError):
        peftbench.PeftbenchCallback(**given)


@pytest.mark.parametrize("name", ["gptq", "awq"])
def test_a_checkpoint_is_read_as_what_it_is(name):
    """It has no bnb_4bit_quant_type: a run on it was recorded as one of fp4."""
    config = transformers.GPTQConfig(bits=4, group_size=64) if name == "gptq" else transformers.AwqConfig(group_size=64)
    model = SimpleNamespace(config=SimpleNamespace(quantization_config=config))
    assert _quantization(model) == QuantizationSpec(quant_type=name, blocksize=64)


def test_a_quantization_without_a_row_is_refused():
    model = SimpleNamespace(config=SimpleNamespace(quantization_config={"quant_method": "spqr"}))
    with pytest.raises(SpecError, match="spqr"):
        _quantization(model)


def test_what_no_spec_can_say_is_told_and_training_ends_well(tmp_path, capsys):
    adapter = peft.LoraConfig(r=4, target_modules=["q_proj"], rank_pattern={"q_proj": 8}, task_type="CAUSAL_LM")
    own = trainer(tmp_path, adapter)
    own.add_callback(peftbench.PeftbenchCallback(str(tmp_path / "run.jsonl")))
    own.train()
    assert "cannot be recorded: rank_pattern" in capsys.readouterr().out
    assert not (tmp_path / "run.jsonl").exists()


def test_one_recipe_is_measured_from_python():
    record = peftbench.measure_training(
        "smollm2-135m", method="lora", device="cpu", steps=1, sequence_length=32, dtype="float32", autocast=False,
    )  # fmt: skip
    assert record.measurement.outcome is Outcome.OK, record.measurement.message
    assert record.case.model == "HuggingFaceTB/SmolLM2-135M"
    (comparison,) = compare([record])
    assert abs(comparison.errors.allocated) <= 0.03


def test_a_card_that_is_not_there_is_told():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(peftbench.PeftbenchError):
        peftbench.measure_training("smollm2-135m", steps=1)
