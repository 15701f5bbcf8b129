"""Configurations as people share them: each tool's usual ways to write a run, and what is priced of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import refusal

from peftbench.base.errors import NoFormula
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec
from peftbench.recipes.reading import read_files
from peftbench.recipes.settings import Reading

ZERO3 = {
    "bf16": {"enabled": "auto"}, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto", "zero_allow_untested_optimizer": True,
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
    "zero_optimization": {
        "stage": 3, "overlap_comm": True, "contiguous_gradients": True, "sub_group_size": "auto",
        "reduce_bucket_size": "auto", "stage3_gather_16bit_weights_on_model_save": True,
        "offload_optimizer": {"device": "cpu", "pin_memory": True}, "offload_param": {"device": "cpu"},
    },
}  # fmt: skip
ACCELERATE_FSDP = {
    "distributed_type": "FSDP", "mixed_precision": "bf16", "num_machines": 2, "num_processes": 16, "machine_rank": 0,
    "downcast_bf16": "no", "rdzv_backend": "static", "fsdp_config": {
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_backward_prefetch": "BACKWARD_PRE",
        "fsdp_cpu_ram_efficient_loading": True, "fsdp_offload_params": False, "fsdp_sharding_strategy": "FULL_SHARD",
        "fsdp_state_dict_type": "SHARDED_STATE_DICT", "fsdp_activation_checkpointing": True, "fsdp_version": 2,
    },
}  # fmt: skip
AXOLOTL_LORA = {
    "base_model": "meta-llama/Meta-Llama-3-8B", "load_in_8bit": True, "adapter": "lora", "lora_r": 32,
    "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_linear": True, "sequence_len": 4096, "sample_packing": True,
    "pad_to_sequence_len": True, "micro_batch_size": 2, "gradient_accumulation_steps": 4, "optimizer": "adamw_bnb_8bit",
    "bf16": "auto", "tf32": False, "gradient_checkpointing": True, "flash_attention": True, "val_set_size": 0.05,
    "datasets": [{"path": "a/b", "type": "alpaca"}], "lora_modules_to_save": ["embed_tokens", "lm_head"],
    "warmup_steps": 10, "special_tokens": {"pad_token": "<|end_of_text|>"}, "loraplus_lr_ratio": 16,
}  # fmt: skip
AXOLOTL_FSDP = {
    "base_model": "casperhansen/llama-3-70b-fp16", "load_in_4bit": True, "adapter": "qlora", "lora_r": 8,
    "lora_target_linear": True, "sequence_len": 512, "micro_batch_size": 1, "gradient_accumulation_steps": 4,
    "optimizer": "adamw_torch", "bf16": "auto", "gradient_checkpointing": True, "flash_attention": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True}, "fsdp": ["full_shard", "auto_wrap"], "fsdp_config": {
        "fsdp_limit_all_gathers": True, "fsdp_sync_module_states": True, "fsdp_offload_params": True,
        "fsdp_use_orig_params": False, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_sharding_strategy": "FULL_SHARD", "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
    },
}  # fmt: skip
AXOLOTL_PHI = {
    "base_model": "microsoft/phi-2", "model_type": "AutoModelForCausalLM", "tokenizer_type": "AutoTokenizer",
    "sequence_len": 2048, "sample_packing": True, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
    "optimizer": "adamw_torch", "adam_beta2": 0.95, "bf16": "auto", "fp16": None, "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True}, "resize_token_embeddings_to_32x": True,
    "flash_attention": True,
}  # fmt: skip
FACTORY_LORA = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "stage": "sft", "do_train": True,
    "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "dataset": "identity,alpaca_en_demo",
    "template": "llama3", "cutoff_len": 2048, "max_samples": 1000, "overwrite_cache": True, "output_dir": "saves/x",
    "preprocessing_num_workers": 16, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
    "learning_rate": 1.0e-4, "num_train_epochs": 3.0, "bf16": True, "ddp_timeout": 180000000, "save_steps": 500,
    "resume_from_checkpoint": None, "report_to": "none",
}  # fmt: skip
FACTORY_QLORA = FACTORY_LORA | {"quantization_bit": 4, "quantization_method": "bnb", "upcast_layernorm": True}
FACTORY_FULL = FACTORY_LORA | {"finetuning_type": "full", "deepspeed": "ds.json"}
TRL_LORA = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B", "dtype": "bfloat16", "dataset_name": "trl-lib/Capybara",
    "learning_rate": 2.0e-4, "packing": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
    "max_length": 2048, "eos_token": "<|im_end|>", "use_peft": True, "lora_r": 32, "lora_alpha": 16,
    "lora_target_modules": "all-linear", "attn_implementation": "flash_attention_2", "logging_steps": 25,
}  # fmt: skip
TRAINING_ARGS = {
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "bf16": True, "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True}, "optim": "paged_adamw_8bit", "eval_strategy": "steps",
    "per_device_eval_batch_size": 8, "group_by_length": True, "evaluation_strategy": "steps",
}  # fmt: skip
ADAPTER = {"peft_type": "LORA", "r": 64, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.1,
           "base_model_name_or_path": "mistralai/Mistral-7B-v0.1", "task_type": "CAUSAL_LM"}  # fmt: skip
USUAL: dict[str, tuple[dict[str, dict], dict[str, Any], tuple[str, ...]]] = {
    "axolotl, LoRA on 8 bit": (
        {"a.json": AXOLOTL_LORA},
        {"method": "qlora", "tokens": 8192, "gradient_accumulation_steps": 4, "padded": False, "use_reentrant": True,
         "optimizer": "adamw_bnb_8bit", "attention": "flash_attention_2"},
        ("lora_modules_to_save",),
    ),
    "axolotl, QLoRA with FSDP": (
        {"a.json": AXOLOTL_FSDP},
        {"method": "qlora", "tokens": 512, "parallelism": ParallelismSpec(strategy="fsdp", cpu_offload=True)},
        ("axolotl turns its LoRA kernels on", "recomputes inside", "FSDP 1", "do not count the GPUs"),
    ),
    "axolotl, full fine-tuning": (
        {"a.json": AXOLOTL_PHI},
        {"method": "full", "padded": False, "dtype": DType.BFLOAT16, "use_reentrant": True},
        ("resize_token_embeddings_to_32x",),
    ),
    "LLaMA-Factory, LoRA": (
        {"a.json": FACTORY_LORA},
        {"method": "lora", "tokens": 2048, "padded": False, "gradient_accumulation_steps": 8, "use_reentrant": True},
        (),
    ),
    "LLaMA-Factory, QLoRA": ({"a.json": FACTORY_QLORA}, {"method": "qlora", "autocast": True}, ()),
    "LLaMA-Factory, full with ZeRO-3": (
        {"a.json": FACTORY_FULL, "ds.json": ZERO3},
        {"method": "full", "dtype": DType.BFLOAT16, "optimizer": "adamw_torch_fused",
         "parallelism": ParallelismSpec(strategy="zero3", cpu_offload=True)},
        ("do not count the GPUs",),
    ),
    "TRL, LoRA": (
        {"a.json": TRL_LORA},
        {"method": "lora", "padded": False, "loss": "liger", "attention": "flash_attention_2", "tokens": 4096},
        ("trl sft",),
    ),
    "TRL by accelerate's FSDP": (
        {"a.json": TRL_LORA | {"gradient_checkpointing": False}, "acc.json": ACCELERATE_FSDP},
        {"parallelism": ParallelismSpec(gpus=16, nodes=2, strategy="fsdp"), "gradient_checkpointing": True},
        ("trl sft",),
    ),
    "TRL by accelerate with DeepSpeed's own file": (
        {"a.json": TRL_LORA, "ds.json": ZERO3,
         "acc.json": {"distributed_type": "DEEPSPEED", "num_processes": 8, "mixed_precision": "bf16",
                      "deepspeed_config": {"deepspeed_config_file": "ds.json", "zero3_init_flag": True}}},
        {"parallelism": ParallelismSpec(gpus=8, strategy="zero3", cpu_offload=True), "use_reentrant": True},
        ("trl sft",),
    ),
    "Trainer and PEFT": (
        {"a.json": TRAINING_ARGS, "adapter_config.json": ADAPTER},
        {"method": "lora", "micro_batch_size": 4, "use_reentrant": True, "optimizer": "paged_adamw_8bit"},
        ("how long", "how the weights are stored", "per_device_eval_batch_size 8 evaluates"),
    ),
}  # fmt: skip


def read(tmp_path: Path, files: dict[str, dict]) -> Reading:
    for name, values in files.items():
        (tmp_path / name).write_text(json.dumps(values))
    return read_files([str(tmp_path / name) for name in files if name != "ds.json"])


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_configuration(name: str, tmp_path: Path) -> None:
    files, meant, said = USUAL[name]
    reading = read(tmp_path, files)
    assert {field: getattr(reading.recipe, field) for field in meant} == meant
    assert [each for each in said if not any(each in note for note in reading.notes)] == []
    assert [note for note in reading.notes if not any(each in note for each in said)] == []


def recipe_of(tmp_path: Path, base: dict, **more: object) -> TrainingSpec:
    return read(tmp_path, {"a.json": base | more}).recipe


def test_the_rank_of_what_is_set_over_another(tmp_path: Path) -> None:
    assert recipe_of(tmp_path, TRL_LORA, activation_checkpointing=False).gradient_checkpointing is False
    assert recipe_of(tmp_path, TRL_LORA, label_smoothing_factor=0.1).loss == "transformers"
    assert recipe_of(tmp_path, TRL_LORA, max_length=None, max_seq_length=512).sequence_length == 512
    assert recipe_of(tmp_path, AXOLOTL_LORA, bf16=False).dtype is DType.FLOAT16, "beside weights of 8 bit"
    assert recipe_of(tmp_path, AXOLOTL_FSDP, fsdp=["shard_grad_op"]).parallelism.strategy == "fsdp-grad-op"
    fsdp2 = {"fsdp": "full_shard auto_wrap", "fsdp_config": {"fsdp_version": 2}}
    assert not recipe_of(tmp_path, FACTORY_LORA, **fsdp2).use_reentrant


def test_stage_3_offloads_the_optimizer_with_the_weights_or_without(tmp_path: Path) -> None:
    """Weights alone are priced without offload."""
    ways = {("optimizer",): (True, False), ("optimizer", "param"): (True, True), ("param",): (False, True)}
    for parts, found in ways.items():
        zero = {"stage": 3, **{f"offload_{part}": {"device": "cpu"} for part in parts}}
        reading = read(tmp_path, {"a.json": FACTORY_FULL | {"deepspeed": {"zero_optimization": zero}}})
        parallelism = reading.recipe.parallelism
        assert (parallelism.cpu_offload, parallelism.offload_params) == found
        assert any("offloads weights alone" in note for note in reading.notes) is (parts == ("param",))


NAMED: tuple[tuple[dict, str, object], ...] = (
    (AXOLOTL_LORA, "gradient_checkpointing", "offload"), (AXOLOTL_LORA, "relora", True),
    (AXOLOTL_LORA, "context_parallel_size", 2), (AXOLOTL_LORA, "tensor_parallel_size", 2),
    (AXOLOTL_LORA, "qat", {"weight_dtype": "int4"}), (AXOLOTL_LORA, "fp8", True), (AXOLOTL_LORA, "lora_model_dir", "x"),
    (AXOLOTL_LORA, "neftune_noise_alpha", 5), (AXOLOTL_LORA, "lora_mlp_kernel", True),
    (AXOLOTL_LORA, "eval_batch_size", 9), (AXOLOTL_LORA, "plugins", ["a.SpectrumPlugin"]),
    (AXOLOTL_LORA, "processor_type", "AutoProcessor"), (AXOLOTL_LORA, "unsloth_rope", True),
    (AXOLOTL_LORA, "bnb_config_kwargs", {"llm_int8_has_fp16_weight": True}),
    (FACTORY_LORA, "use_unsloth", True), (FACTORY_LORA, "use_galore", True), (FACTORY_LORA, "use_apollo", True),
    (FACTORY_LORA, "use_badam", True), (FACTORY_LORA, "upcast_lmhead_output", True), (FACTORY_LORA, "fp8", True),
    (FACTORY_LORA, "adapter_name_or_path", "x"), (FACTORY_LORA, "use_asft_loss", True),
    (FACTORY_LORA, "label_smoothing_factor", 0.1), (TRL_LORA, "activation_offloading", True),
    (TRL_LORA, "model_init_kwargs", {"a": 1}), (TRL_LORA, "parallelism_config", {"tp_size": 2}),
    (TRL_LORA, "torch_compile_mode", "reduce-overhead"),
)  # fmt: skip


@pytest.mark.parametrize(("base", "name", "value"), NAMED, ids=lambda value: str(value)[:20])
def test_what_moves_memory_and_is_not_priced_is_named(base: dict, name: str, value: object, tmp_path: Path) -> None:
    before = set(read(tmp_path, {"a.json": base}).notes)
    new = [note for note in read(tmp_path, {"a.json": base | {name: value}}).notes if note not in before]
    words = (name, "gradient_checkpointing", "evaluation", "SpectrumPlugin", "llm_int8_has_fp16_weight")
    assert any(word in note for note in new for word in words), new


REFUSED: tuple[tuple[dict, str, object], ...] = (
    (AXOLOTL_LORA, "rl", "grpo"), (AXOLOTL_LORA, "reward_model", True), (AXOLOTL_LORA, "process_reward_model", True),
    (AXOLOTL_LORA, "optimizer", "muon"), (AXOLOTL_LORA, "optimizer", "q_galore_adamw8bit"),
    (FACTORY_LORA, "stage", "dpo"), (FACTORY_LORA, "stage", "ppo"), (FACTORY_LORA, "finetuning_type", "freeze"),
    (FACTORY_LORA, "quantization_method", "hqq"), (TRL_LORA, "beta", 0.1), (TRL_LORA, "num_generations", 8),
    (TRL_LORA, "teacher_model_name_or_path", "x/y"), (TRL_LORA, "reward_funcs", ["accuracy"]),
)  # fmt: skip


@pytest.mark.parametrize(("base", "name", "value"), REFUSED, ids=lambda value: str(value)[:20])
def test_another_kind_of_training_is_refused(base: dict, name: str, value: object, tmp_path: Path) -> None:
    if name == "quantization_method":
        base = FACTORY_QLORA
    with pytest.raises(NoFormula):
        read(tmp_path, {"a.json": base | {name: value}})


@pytest.mark.parametrize("optimizer", ["galore_adamw", "apollo_adamw", "adamw_torch_8bit"])
def test_optimizers_of_other_packages_are_refused(optimizer: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TRL_LORA | {"optim": optimizer}))
    assert "not modelled" in refusal("plan", "--from", str(tmp_path / "a.json"), "--gpu", "rtx4090").replace("\n", " ")
