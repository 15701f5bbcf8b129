"""Somebody's configuration: every tool's own defaults, what a file means, and what is said of what is not priced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_runner import answer, refusal

from peftbench.base.errors import PeftbenchError
from peftbench.inputs.recipe import DType, ParallelismSpec
from peftbench.recipes.reading import read_files
from peftbench.recipes.settings import Reading

QLORA_AXOLOTL = """
base_model: meta-llama/Llama-3.1-8B
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_target_linear: true
lora_mlp_kernel: false
micro_batch_size: 2
sample_packing: true
flash_attention: true
gradient_checkpointing: true
sequence_len: 4096
learning_rate: 2e-4
optimizer: paged_adamw_8bit
"""


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 10)
)
"""Ten lines of YAML that would be a billion words, were they written out."""


def read(tmp_path: Path, text: str, name: str = "run.yaml") -> Reading:
    path = tmp_path / name
    path.write_text(text)
    return read_files([str(path)])


def test_axolotl_defaults(tmp_path: Path) -> None:
    recipe = read(tmp_path, "base_model: x/y\n").recipe
    assert (recipe.sequence_length, recipe.micro_batch_size, recipe.method) == (512, 1, "full")
    assert (recipe.dtype, recipe.autocast) == (DType.BFLOAT16, True)
    assert not recipe.gradient_checkpointing


def test_axolotl_qlora(tmp_path: Path) -> None:
    reading = read(tmp_path, QLORA_AXOLOTL)
    recipe = reading.recipe
    assert reading.model == "meta-llama/Llama-3.1-8B"
    assert (recipe.method, recipe.attention, recipe.padded) == ("qlora", "flash_attention_2", False)
    assert recipe.use_reentrant, "axolotl's own default where gradient_checkpointing_kwargs are left out"
    assert recipe.quantization and recipe.quantization.double_quant
    assert reading.notes == ()


def test_llamafactory_defaults(tmp_path: Path) -> None:
    recipe = read(tmp_path, "model_name_or_path: x/y\nfinetuning_type: lora\n").recipe
    assert (recipe.sequence_length, recipe.micro_batch_size) == (2048, 8)
    assert recipe.adapter and recipe.adapter.r == 8 and recipe.adapter.target_modules == ("all-linear",)
    assert recipe.gradient_checkpointing and recipe.use_reentrant and recipe.padded


def test_llamafactory_trains_float32_weights(tmp_path: Path) -> None:
    text = "model_name_or_path: x/y\nfinetuning_type: full\nbf16: true\n"
    assert read(tmp_path, text).recipe.dtype is DType.FLOAT32
    assert read(tmp_path, text + "pure_bf16: true\n").recipe.dtype is DType.BFLOAT16


def test_trl_defaults(tmp_path: Path) -> None:
    recipe = read(tmp_path, "model_name_or_path: x/y\nuse_peft: true\n").recipe
    assert (recipe.sequence_length, recipe.micro_batch_size, recipe.dtype) == (1024, 8, DType.FLOAT32)
    assert recipe.gradient_checkpointing and not recipe.use_reentrant and recipe.loss == "liger"
    assert recipe.adapter and (recipe.adapter.r, recipe.adapter.dropout) == (16, 0.05)
    assert recipe.adapter.target_modules is None


def test_trl_adapters_of_quantized_weights_are_bfloat16(tmp_path: Path) -> None:
    text = "model_name_or_path: x/y\nuse_peft: true\nload_in_4bit: true\ndtype: bfloat16\n"
    recipe = read(tmp_path, text).recipe
    assert recipe.adapter and recipe.adapter.dtype is DType.BFLOAT16
    assert recipe.quantization and not recipe.quantization.double_quant


@pytest.mark.oracle
@pytest.mark.oracle
def test_training_arguments_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    given = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=3, gradient_accumulation_steps=2, bf16=True,
        activation_checkpointing=True, optim="adafactor", use_cpu=True,
    )  # fmt: skip
    reading = read(tmp_path, json.dumps(given.to_dict()), "training_args.json")
    recipe = reading.recipe
    assert (recipe.micro_batch_size, recipe.gradient_accumulation_steps, recipe.optimizer) == (3, 2, "adafactor")
    assert recipe.gradient_checkpointing and recipe.autocast
    assert not [note for note in reading.notes if "unknown" in note]
    default = read(tmp_path, json.dumps(transformers.TrainingArguments(str(tmp_path)).to_dict()), "d.json").recipe
    bare = read(tmp_path, '{"optim": null, "per_device_train_batch_size": null}', "bare.json").recipe
    assert default == bare


def test_adapter_and_quantization_come_with_the_arguments(tmp_path: Path) -> None:
    parts = {
        "training_args.json": {"per_device_train_batch_size": 1, "bf16": True},
        "adapter_config.json": {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"],
                                "base_model_name_or_path": "x/y"},
        "bnb.json": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"},
    }  # fmt: skip
    for name, values in parts.items():
        (tmp_path / name).write_text(json.dumps(values))
    reading = read_files([str(tmp_path / name) for name in parts])
    assert (reading.recipe.method, reading.model) == ("qlora", "x/y")
    assert reading.recipe.adapter and reading.recipe.adapter.r == 4


def test_the_deepspeed_file_beside_is_read(tmp_path: Path) -> None:
    cpu = {"device": "cpu"}
    offload = {"stage": 3, "offload_optimizer": cpu, "offload_param": cpu, "reduce_bucket_size": 5}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": offload}))
    reading = read(tmp_path, "base_model: x/y\ndeepspeed: ds.json\n")
    assert reading.recipe.parallelism == ParallelismSpec(strategy="zero3", cpu_offload=True, reduce_bucket_size=5)
    assert any("do not count the GPUs" in note for note in reading.notes)
    assert not any("reduce_bucket_size" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("zero", "wanted"),
    [
        ({"stage": 2}, {"reduce_bucket_size": 500_000_000}),  # DeepSpeed's own
        ({"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True}, {"overlap_comm": True}),
        ({"stage": 3, "reduce_bucket_size": 2e8, "overlap_comm": True}, {"reduce_bucket_size": 200_000_000}),
        ({"stage": 0, "reduce_bucket_size": 7}, {}),
    ],
)
def test_deepspeeds_buckets_are_read(zero: dict[str, object], wanted: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero}))
    found = read(tmp_path, "base_model: x/y\ndeepspeed: ds.json\n").recipe.parallelism
    strategy = f"zero{zero['stage']}" if zero["stage"] else "ddp"
    assert found == ParallelismSpec(strategy=strategy, **wanted)


@pytest.mark.parametrize("size", [0, -1, "5e8", True, [1], 1e300])
def test_a_bucket_is_a_number_of_elements(size: object, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_size": size}}))
    with pytest.raises(PeftbenchError, match="reduce_bucket_size of the axolotl file must be a number of elements"):
        read(tmp_path, "base_model: x/y\ndeepspeed: ds.json\n")


@pytest.mark.parametrize(
    ("zero", "live", "size"),
    [
        ({}, 10**9, 10**9),
        ({"sub_group_size": 1e14, "stage3_max_live_parameters": 1e9, "max_reuse_distance": "auto"}, 10**9, 10**14),
        ({"stage3_max_live_parameters": 1e8}, 5 * 10**8, 10**9),  # half of the distance stays between two passes
        ({"stage3_max_live_parameters": 1e8, "stage3_max_reuse_distance": 1e8}, 10**8, 10**9),
        ({"max_live_parameters": 3e9, "sub_group_size": 1e8}, 3 * 10**9, 10**8),
    ],
)
def test_the_limits_of_stage_3_are_read(zero: dict[str, object], live: int, size: int, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 3, **zero}}))
    reading = read(tmp_path, "base_model: x/y\ndeepspeed: ds.json\n")
    found = reading.recipe.parallelism
    assert (found.max_live_parameters, found.sub_group_size) == (live, size)
    assert not any("stage3" in note or "sub_group" in note for note in reading.notes)


@pytest.mark.parametrize("model", ["base_model: x/y", "model_name_or_path: x/y"], ids=["axolotl", "trl"])
@pytest.mark.parametrize("synced", [True, False])
def test_accelerates_sync_each_batch_is_read(model: str, synced: bool, tmp_path: Path) -> None:
    config = f"{{split_batches: true, gradient_accumulation_kwargs: {{sync_each_batch: {str(synced).lower()}}}}}"
    reading = read(tmp_path, f"{model}\noptim: adamw_torch\naccelerator_config: {config}\n")
    assert reading.recipe.sync_each_batch is synced
    assert not any("accelerator_config" in note or "sync" in note for note in reading.notes)
    named = read(tmp_path, f"{model}\noptim: adamw_torch\naccelerator_config: a.json\n")
    assert not named.recipe.sync_each_batch
    assert any("accelerator_config names a file" in note for note in named.notes)


@pytest.mark.parametrize(
    ("launcher", "quantized", "loading"),
    [
        ("distributed_type: FSDP\nfsdp_config: {fsdp_cpu_ram_efficient_loading: false}", True, "whole"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_cpu_ram_efficient_loading: true}", True, None),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_cpu_ram_efficient_loading: false}", False, None),  # on the host
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3, zero3_init_flag: false}", False, "whole"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}", False, None),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2, zero3_init_flag: false}", False, None),
    ],
)
def test_how_weights_are_loaded_is_read(launcher: str, quantized: bool, loading: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{launcher}\nnum_processes: 2\n")
    (tmp_path / "b.yaml").write_text(QLORA_AXOLOTL if quantized else "base_model: x/y\n")
    reading = read_files([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert reading.recipe.parallelism.loading == loading
    assert not any("loading" in note or "zero3_init" in note for note in reading.notes)


def test_a_bare_no_of_accelerate_is_one_gpu(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("distributed_type: NO\nnum_processes: 1\n")
    (tmp_path / "b.yaml").write_text("base_model: x/y\n")
    assert read_files([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]).recipe.parallelism == ParallelismSpec()


@pytest.mark.parametrize("setting", ["new_cache_trick: 3", "fsdp_config: {a_new_switch: true}\nfsdp: [full_shard]"])
def test_an_unknown_setting_is_named(tmp_path: Path, setting: str) -> None:
    (note, *_) = [n for n in read(tmp_path, f"base_model: x/y\n{setting}\n").notes if "unknown" in n]
    assert setting.split(":")[0] in note


def test_what_costs_memory_and_is_not_priced_is_named(tmp_path: Path) -> None:
    notes = read(tmp_path, QLORA_AXOLOTL + "lora_modules_to_save: [lm_head]\nwandb_project: a\n").notes
    assert len(notes) == 1 and "lora_modules_to_save" in notes[0]


def test_a_list_where_a_word_belongs_is_no_crash(tmp_path: Path) -> None:
    assert read(tmp_path, '{"optim": "sgd", "eval_strategy": []}', "list.json").recipe.optimizer == "sgd"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "holds a list"),
        ("", "holds nothing"),
        ("a: [1\n", "is not YAML"),
        ("hello: world\n", "not a recognised configuration file"),
        ("1: 2\n", "not a mapping"),
        ("base_model: x/y\nmicro_batch_size: two\n", "micro_batch_size"),
        ("base_model: x/y\nmicro_batch_size: true\n", "micro_batch_size"),
        ("base_model: x/y\nmicro_batch_size: -1\n", "micro_batch_size"),
        (f"base_model: x/y\nmicro_batch_size: {'9' * 400}\n", "at most 300 digits"),
        ("base_model: x/y\nx: " + "[" * 3000 + "]" * 3000, "is not YAML"),
        (BOMB + "base_model: x/y\nmicro_batch_size: *a9\n", "behind aliases"),
        (BOMB + "base_model: x/y\nadapter: lora\nlora_r: 8\nlora_target_modules: *a9\n", "behind aliases"),
        ("base_model: x/y\nbase_model: x/z\n", "line 2: the key 'base_model' comes twice"),
        ("base_model: x/y\n---\nbase_model: x/y\n", "YAML of one document"),
        ("base_model: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("base_model: x/y\nmodel_name_or_path: x/y\n", "belongs to another tool"),
        ("base_model: x/y\nadapter: lora\nlora_r: 8\nlora_target_modules: 'a.*(q|v)'\n", "regular expression"),
        ("base_model: x/y\nlora_dropout: 1.5\nadapter: lora\nlora_r: 8\n", "lora_dropout"),
        ("base_model: x/y\nload_in_4bit: true\n", "quantized weights cannot be trained"),
        ("base_model: x/y\nadapter: lora\nlora_r: 8\nload_in_4bit: true\nbnb_config_kwargs: 3\n", "bnb_config_kwargs"),
        ("base_model: x/y\nadapter: lora\n", "no lora_r"),
        ("base_model: x/y\nattn_implementation: fast\n", "attention"),
        ("base_model: x/y\nrl: dpo\n", "not modelled"),
        ("base_model: x/y\ndeepspeed: none.json\n", "which is not there"),
        ("model_name_or_path: x/y\nfinetuning_type: freeze\n", "freeze"),
        ("model_name_or_path: x/y\nstage: dpo\n", "not modelled"),
        ("zero_optimization: {stage: 3}\n", "one file must say how to train"),
        ("base_model: nobody/nothing\n", "cannot be found"),
        ("base_model: 8b\noptimizer: adamz\n", "unknown optimizer"),
    ],
)
def test_bad_files_are_one_message(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert said in refusal("plan", "--from", str(path), "--gpu", "t4").replace("\n", " ")


def test_no_file_and_no_model_are_told(tmp_path: Path) -> None:
    assert "cannot read" in refusal("plan", "--from", str(tmp_path / "none.yaml"))
    (tmp_path / "args.json").write_text('{"optim": "sgd"}')
    assert "names no model" in refusal("plan", "--from", str(tmp_path / "args.json"))
    (tmp_path / "script.py").write_text("TRAINING_ARGUMENTS = dict(a=1)\n")
    assert "computed" in refusal("plan", "--from", str(tmp_path / "script.py"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refusal("plan", "--from", str(tmp_path / "bytes.yaml"))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a file" in refusal("plan", "--from", str(tmp_path / "pipe.yaml"))
    with open(tmp_path / "long.yaml", "wb") as file:
        file.truncate(1 << 30)
    assert "far too long" in refusal("plan", "--from", str(tmp_path / "long.yaml"))


def test_two_runs_cannot_be_one(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("base_model: x/y\n")
    with pytest.raises(PeftbenchError, match="two of the files"):
        read_files([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])


def test_what_is_typed_comes_before_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yml"
    path.write_text(QLORA_AXOLOTL)
    question = ("plan", "--from", str(path), "--gpu", "rtx4090", "--format", "json")
    whole = json.loads(answer(*question))["plans"][0]["recipe"]
    typed = json.loads(answer(*question, "--micro-batch-size", "1", "--r", "8"))["plans"][0]["recipe"]
    changed = {name for name in whole if whole[name] != typed[name]}
    assert changed == {"micro_batch_size", "r"}
    other = json.loads(answer(*question, "--method", "full"))["plans"][0]["recipe"]
    assert other["peft_type"] is None and other["sequence_length"] == 4096


@pytest.mark.parametrize(
    ("text", "alpha"),
    [
        (QLORA_AXOLOTL, None),
        (QLORA_AXOLOTL + "lora_alpha: 16\n", 16),
        ("model_name_or_path: x/y\nstage: sft\nfinetuning_type: lora\nlora_rank: 4\n", 8),
        ("model_name_or_path: x/y\nstage: sft\nfinetuning_type: lora\nlora_rank: 4\nlora_alpha: 5\n", 5),
        ("model_name_or_path: x/y\nuse_peft: true\nmax_length: 64\n", 32),
        ("model_name_or_path: x/y\nuse_peft: true\nmax_length: 64\nlora_alpha: 3\n", 3),
    ],
)
def test_alpha_is_read_and_each_tool_has_its_default(tmp_path: Path, text: str, alpha: int | None) -> None:
    adapter = read(tmp_path, text).recipe.adapter
    assert adapter is not None and adapter.alpha == alpha


def test_alpha_is_read_from_an_adapter_config(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 24, "target_modules": ["q_proj"]}))
    asked = ("plan", "--model", "1b", "--gpu", "t4", "--format", "json")
    (of_file,) = json.loads(answer(*asked, "--adapter-config", str(path)))["plans"]
    (plain,) = json.loads(answer(*asked, "--method", "lora", "--r", "4", "--target-modules", "q_proj"))["plans"]
    assert (of_file["recipe"]["lora_alpha"], plain["recipe"]["lora_alpha"]) == (24, 8)
    assert of_file["memory"] == plain["memory"]
