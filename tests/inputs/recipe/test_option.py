"""A recipe's option is declared in one place: everything that shows, reads or checks it follows from there."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peftbench
from peftbench.base.errors import SpecError
from peftbench.decide.from_options import training_recipes
from peftbench.decide.recipe import SPECS, recipe_options
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.inputs.recipe.option import options_of
from peftbench.inputs.schemes.scheme import scheme_of
from peftbench.report.plan.rows import COLUMNS

LINE = '    made_up: int = option(7, "Made up.", least=1, most=9, screen="made up {{}}", column={column})\n'
PLAN = ("plan", "--model", "1b", "--gpu", "t4", "--method", "lora")
PYTHON = "import peftbench; print(peftbench.plan('1b', 't4', made_up={value}).options['made_up'])"


@pytest.fixture(scope="module")
def with_made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more option, which is one more line in one file."""
    place = tmp_path_factory.mktemp("copy")
    package = Path(peftbench.__file__).parent
    shutil.copytree(package, place / "peftbench", ignore=shutil.ignore_patterns("__pycache__"))
    file = place / "peftbench" / "inputs" / "recipe" / "training.py"
    before, adapter, after = file.read_text(encoding="utf-8").partition("    adapter: AdapterSpec")
    file.write_text(before + LINE.format(column=len(COLUMNS) + 1) + adapter + after, encoding="utf-8")
    return place


def ask(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the copy."""
    environment = {**os.environ, "PYTHONPATH": str(place), "COLUMNS": "100", "PEFTBENCH_CALIBRATION": "none"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=place
    )


def answer(place: Path, *arguments: str) -> str:
    done = ask(place, "-m", "peftbench", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_line_adds_an_option_to_the_command_line(with_made_up: Path) -> None:
    text = answer(with_made_up, "plan", "--help")
    assert "--made-up N" in text and "Made up.  [default: 7]" in text
    assert "made up 7" in answer(with_made_up, *PLAN)
    assert "made up 3" in answer(with_made_up, *PLAN, "--made-up", "3")


def test_one_line_adds_an_option_to_json_and_csv(with_made_up: Path) -> None:
    document = json.loads(answer(with_made_up, *PLAN, "--made-up", "3", "--format", "json"))
    assert document["plans"][0]["recipe"]["made_up"] == 3
    heading, row = csv.reader(io.StringIO(answer(with_made_up, *PLAN, "--made-up", "3", "--format", "csv")))
    assert heading == [*COLUMNS, "made_up"] and row[-1] == "3"


def test_one_line_adds_an_option_to_python_and_to_the_checks(with_made_up: Path) -> None:
    assert ask(with_made_up, "-c", PYTHON.format(value=3)).stdout == "3\n"
    assert "made_up must be at most 9 (got 10)." in ask(with_made_up, "-c", PYTHON.format(value=10)).stderr
    assert "--made-up must be a whole number, not 'x'." in ask(with_made_up, "-c", PYTHON.format(value="'x'")).stderr
    wrong = ask(with_made_up, "-m", "peftbench", *PLAN, "--made-up", "10")
    assert wrong.returncode == 2 and "'10' is not a whole number from 1 to 9." in wrong.stderr


# ── what is declared ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_option_has_one_place_in_csv_and_one_help() -> None:
    declared = {option.name: option for spec in SPECS for option in options_of(spec)}
    places = [option.column for option in declared.values()]
    assert None not in places and len(set(places)) == len(places) and max(filter(None, places)) <= len(COLUMNS)
    assert all(COLUMNS[(option.column or 0) - 1] == name for name, option in declared.items())
    assert all(option.help.endswith((".", "…")) for option in declared.values())
    assert not any(option.help.startswith("Of ") for option in declared.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdapterSpec(r=0), "r must be at least 1 (got 0)."),
        (lambda: AdapterSpec(r=-4), "r must be at least 1 (got -4)."),
        (lambda: AdapterSpec(dropout=1.0), "lora_dropout must be less than 1 (got 1.0)."),
        (lambda: AdapterSpec(dropout=-0.5), "lora_dropout must not be negative (got -0.5)."),
        (lambda: TrainingSpec(sequence_length=True), "--sequence-length must be a whole number, not True."),
        (lambda: TrainingSpec(loss="ligre"), "loss cannot be 'ligre'. Did you mean liger?"),
        (lambda: InferenceSpec(new_tokens=-1), "new_tokens must not be negative (got -1)."),
        (lambda: QuantizationSpec(blocksize=48), "refuses a block size of 48."),
        (lambda: ParallelismSpec(gpus=5000, strategy="fsdp"), "gpus must be at most 4,096 (got 5000)."),
        (lambda: training_recipes(("ia3",), {"adapter_options": 3}), "--adapter-option must be names with values"),
        (lambda: training_recipes(("lora",), {"zero_grad": "kept"}), "zero_grad cannot be 'kept'. Did you mean keep?"),
        (lambda: training_recipes(("prompt_tuning",), {"num_virtual_tokens": 0}), "must be at least 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(SpecError) as error:
        make()  # type: ignore[operator]
    assert message in str(error.value)


# ── both ways ───────────────────────────────────────────────────────────────────────────────────────────────────────

GIVEN = {
    "sequence_length": 64, "padded": True, "zero_grad": "keep", "dtype": "float16", "transformers": "4.45", "r": 4,
    "gpus": 16, "parallel": "zero2", "target_modules": ["q_proj", "v_proj"], "adapter_dtype": "bfloat16",
    "lora_dropout": 0.5, "lora_alpha": 4, "quant_type": "fp4", "compute_dtype": "float32", "blocksize": 128,
    "use_dora": True, "adapter_options": {"lora_bias": True, "init_lora_weights": True},
}  # fmt: skip


def test_a_recipe_comes_back_from_its_options() -> None:
    (recipe,) = training_recipes(("qlora",), GIVEN)
    flat = recipe_options(recipe)
    assert GIVEN.items() <= flat.items()
    options = {name: value for name, value in flat.items() if name not in ("task", "peft_type")}
    assert training_recipes(("qlora",), options) == (recipe,)


@pytest.mark.parametrize("name", sorted(GIVEN.keys() - {"gpus", "adapter_options"}))
def test_one_option_changes_nothing_else(name: str) -> None:
    (recipe,) = training_recipes(("qlora",), {"gpus": 2})
    (other,) = training_recipes(("qlora",), {name: GIVEN[name]}, recipe)
    before, after = recipe_options(recipe), recipe_options(other)
    assert [each for each in before if before[each] != after[each]] == [name]


READ = TrainingSpec(
    sequence_length=512,
    adapter=AdapterSpec(r=8, options=(("lora_bias", True),)),  # PEFT's own targets
    quantization=QuantizationSpec(blocksize=256, double_quant=False, upcast_norms=True),
)
"""A recipe as a file may have it."""


@pytest.mark.parametrize("options", [{"r": 64}, {"lora_dropout": 0.1}, {"compute_dtype": "float16"}, {"loss": "liger"}])
def test_what_is_typed_leaves_the_rest_of_a_read_recipe(options: dict[str, object]) -> None:
    (recipe,) = training_recipes(("qlora",), options, READ)
    before, after = recipe_options(READ), recipe_options(recipe)
    assert {name: after[name] for name in before if before[name] != after[name]} == options


def test_another_method_keeps_of_a_read_recipe_what_it_has() -> None:
    (lora,) = training_recipes(("lora",), {}, READ)
    assert lora.adapter == READ.adapter and lora.quantization is None
    (qia3,) = training_recipes(("qia3",), {}, READ)
    assert qia3.adapter == AdapterSpec(peft_type="ia3") and qia3.quantization == READ.quantization
    (gptq,) = training_recipes(("qlora",), {"quant_type": "gptq"}, READ)
    assert gptq.quantization and gptq.quantization.blocksize == scheme_of("gptq").blocksize != 256


def test_one_gpu_of_a_file_becomes_nodes_of_eight() -> None:
    (recipe,) = training_recipes(("qlora",), {"gpus": 16}, READ)
    assert recipe.parallelism == ParallelismSpec(gpus=16, nodes=2, strategy="fsdp")


def test_an_option_of_another_scheme_than_the_files_is_refused() -> None:
    eight_bit = TrainingSpec(adapter=AdapterSpec(), quantization=QuantizationSpec(quant_type="int8"))
    with pytest.raises(SpecError, match="--double-quant has no effect with --quant-type int8"):
        training_recipes(("qlora",), {"double_quant": True}, eight_bit)
