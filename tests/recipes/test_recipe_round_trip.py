"""A recipe that is written for another tool and read back is the same recipe: spec for spec and byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes_and_cards import SMALL

from peftbench.decide.plan.plan import make_plan
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.inputs.recipe import AdapterSpec, DType, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.training import DEVICE_MAPS, FUSED_KERNELS, LOOPS, LOSSES
from peftbench.recipes.documents import yaml_of
from peftbench.recipes.export import export
from peftbench.recipes.reading import read_files
from peftbench.recipes.rows import write
from peftbench.recipes.tools import axolotl, llamafactory, trl

FILES = {"transformers": "train.py", "trl": "trl.yaml", "axolotl": "axolotl.yml", "llamafactory": "llamafactory.yaml"}
MODEL = "Qwen/Qwen2.5-0.5B"
HALVES = (DType.BFLOAT16, DType.FLOAT16)

LORAS = st.builds(
    AdapterSpec,
    r=st.integers(1, 64),
    target_modules=st.sampled_from((("all-linear",), ("q_proj", "v_proj"))),
    use_dora=st.booleans(),
    use_rslora=st.booleans(),
    dtype=st.sampled_from((DType.FLOAT32, DType.BFLOAT16)),
    dropout=st.one_of(st.just(0.0), st.floats(1e-9, 0.9)),
)
QUANTIZATIONS = st.builds(
    lambda dtype, kind, double, norms: replace(
        quantization_for(dtype), quant_type=kind, double_quant=double, upcast_norms=norms
    ),
    st.sampled_from(HALVES), st.sampled_from(("nf4", "fp4", "int8")), st.booleans(), st.booleans(),
)  # fmt: skip
METHODS = st.one_of(
    st.just((None, None)), st.tuples(LORAS, st.none()), st.tuples(LORAS, QUANTIZATIONS)
)
RECIPES = st.builds(
    lambda method, **rest: TrainingSpec(adapter=method[0], quantization=method[1], **rest),
    METHODS,
    sequence_length=st.integers(1, 4096),
    padded=st.booleans(),
    micro_batch_size=st.integers(1, 9),
    gradient_accumulation_steps=st.integers(1, 8),
    gradient_checkpointing=st.booleans(),
    use_reentrant=st.booleans(),
    dtype=st.sampled_from(tuple(DType)),
    autocast=st.booleans(),
    optimizer=st.sampled_from(("adamw_torch", "adamw_torch_fused", "paged_adamw_8bit", "adafactor", "lion_8bit")),
    attention=st.sampled_from(("sdpa", "eager", "flash_attention_2")),
    loss=st.sampled_from(LOSSES),
    fused_kernels=st.sampled_from(FUSED_KERNELS),
    loop=st.sampled_from(LOOPS),
    device_map=st.sampled_from(DEVICE_MAPS),
    use_cache=st.booleans(),
    sync_each_batch=st.booleans(),
)
SHARDED = st.sampled_from((
    ParallelismSpec(gpus=4, strategy="ddp"),
    ParallelismSpec(gpus=8, nodes=2, strategy="zero1"),
    ParallelismSpec(gpus=2, strategy="zero2", cpu_offload=True),
    ParallelismSpec(gpus=8, strategy="zero3", cpu_offload=True),
    ParallelismSpec(gpus=4, strategy="fsdp"),
    ParallelismSpec(gpus=16, nodes=2, strategy="fsdp-grad-op", cpu_offload=True),
))  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize("tool", FILES)
@settings(max_examples=40, deadline=None)
@given(recipe=RECIPES)
def test_a_file_reads_as_what_it_was_said_to_say(tool: str, recipe: TrainingSpec, folder) -> None:
    written = export(MODEL, recipe, tool)
    path = folder / FILES[tool]
    path.write_text(written.text)
    reading = read_files([str(path)])
    assert reading.recipe == written.recipe
    assert reading.model == MODEL
    assert [note for note in reading.notes if "unknown" in note] == []
    assert all(f"# {note}" in written.text for note in reading.notes), "what is not priced stands in the file"
    assert export(MODEL, reading.recipe, tool).differences == ()


@pytest.mark.parametrize("tool", FILES)
@settings(max_examples=10, deadline=None)
@given(recipe=RECIPES)
def test_the_plan_of_a_file_has_the_bytes_of_the_plan(tool: str, recipe: TrainingSpec, folder) -> None:
    written = export(MODEL, recipe, tool)
    path = folder / f"priced-{FILES[tool]}"
    path.write_text(written.text)
    plan = make_plan(SMALL, read_files([str(path)]).recipe)
    asked = make_plan(SMALL, written.recipe)
    assert plan.profile == asked.profile
    if not written.differences:
        assert plan.profile == make_plan(SMALL, recipe).profile


@settings(max_examples=40, deadline=None)
@given(recipe=RECIPES, parallelism=SHARDED)
def test_the_accelerate_file_carries_the_gpus(recipe: TrainingSpec, parallelism: ParallelismSpec, folder) -> None:
    recipe = replace(recipe, parallelism=parallelism)
    script = folder / "sharded.py"
    script.write_text(export(MODEL, recipe, "transformers").text)
    launcher = folder / "accelerate.yaml"
    written = export(MODEL, recipe, "accelerate")
    launcher.write_text(written.text)
    assert read_files([str(script), str(launcher)]).recipe.parallelism == written.recipe.parallelism
    zero = parallelism.strategy.startswith("zero")  # whose buckets accelerate has no word for
    assert written.recipe.parallelism == replace(parallelism, reduce_bucket_size=500_000_000 if zero else None)


@pytest.mark.parametrize("tool", [axolotl.TOOL, llamafactory.TOOL, trl.TOOL], ids=lambda tool: tool.name)
def test_sharding_is_in_the_file_itself(tool, folder) -> None:
    for strategy, more in (
        ("zero2", {}), ("zero2", {"overlap_comm": True, "reduce_bucket_size": 1000}), ("zero3", {}), ("fsdp", {}),
        ("zero3", {"offload_params": False, "max_live_parameters": 10**8, "sub_group_size": 10**8}),
    ):  # fmt: skip
        spec = ParallelismSpec(strategy=strategy, cpu_offload=True, **more)
        path = folder / "own.yaml"
        path.write_text(yaml_of(write(tool, MODEL, TrainingSpec(adapter=LORA, parallelism=spec))))
        assert read_files([str(path)]).recipe.parallelism == spec


@pytest.mark.parametrize("tool", FILES)
def test_pefts_own_targets_can_be_written(tool: str, folder) -> None:
    """LLaMA-Factory has no word for them and takes all linear layers: its file says so."""
    written = export(MODEL, TrainingSpec(adapter=AdapterSpec(r=8, target_modules=None)), tool)
    path = folder / f"default-{FILES[tool]}"
    path.write_text(written.text)
    found = read_files([str(path)]).recipe.adapter
    assert found and found.target_modules == (("all-linear",) if tool == "llamafactory" else None)
    changed = any(change.option == "--target-modules" for change in written.differences)
    assert changed == (tool == "llamafactory")


@pytest.mark.parametrize("peft_type", ["ia3", "vera", "oft", "adalora", "prompt_tuning", "loha"])
def test_the_script_has_every_kind_of_adapter(peft_type: str, folder) -> None:
    recipe = TrainingSpec(adapter=AdapterSpec(peft_type=peft_type))
    path = folder / "kinds.py"
    path.write_text(export(MODEL, recipe, "transformers").text)
    found = make_plan(SMALL, read_files([str(path)]).recipe)
    assert found.profile == make_plan(SMALL, recipe).profile


WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")))
VALUES = st.booleans() | st.integers() | WORDS | st.floats(allow_nan=False, allow_infinity=False) | st.lists(WORDS)
NAMES = st.from_regex(r"x[a-z_]{1,8}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES), min_size=1))
def test_yaml_reads_back(values: dict) -> None:
    assert yaml.safe_load(yaml_of(values)) == values
