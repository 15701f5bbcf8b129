"""Settings that no formula reads: which are known not to matter for memory, and what is said of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from peftbench.recipes.settings import Settings

HARMLESS = (
    "accelerator_config", "adam_", "assistant_only", "audio_", "auto_resume", "average_tokens", "base_model_config",
    "batch_eval", "bf16_full", "buffer_size", "cache_dir", "chat_template", "comet", "completion_only",
    "compute_environment", "data_seed", "dataloader_", "dataset", "dataset_", "datasets", "ddp_backend",
    "ddp_broadcast", "ddp_find", "ddp_static", "ddp_timeout", "debug", "default_system", "disable_tqdm", "do_",
    "do_sample", "downcast", "early_stopping", "enable_cpu_affinity", "enable_jit", "enable_thinking", "eos_token",
    "eot_tokens", "eval_batch_size", "eval_delay", "eval_do_", "eval_on_", "eval_sample", "eval_steps",
    "eval_strategy", "eval_use_", "evals_per", "excess_length", "export_", "fp16_backend", "fp16_full", "fp16_opt",
    "full_determinism", "gpu_ids", "gradient_clipping", "greater_is", "group_by_length", "half_precision", "hf_use",
    "hub_", "ignore_data_skip", "image_", "include_", "include_for", "infer_", "init_lora", "interleave",
    "is_falcon", "is_llama", "is_mistral", "is_preprocess", "is_qwen", "jit_mode", "label_names", "label_smoothing",
    "learning_rate", "length_column", "length_penalty", "load_best", "local_rank", "log_", "logging_", "lora_alpha",
    "lora_fan", "lora_on_cpu", "lora_task_type", "loraplus", "low_cpu_mem", "lr_", "machine_rank", "main_process",
    "main_training", "mask_history", "max_grad_norm", "max_new_tokens", "max_samples", "max_steps", "merge_",
    "metric_for", "min_sample", "mix_strategy", "mixed_precision", "mlflow", "model_revision", "model_type",
    "no_cuda", "num_beams", "num_epochs", "num_train_epochs", "optim_args", "output_dir", "overlap_comm",
    "overwrite", "packing_strategy", "pad_to_multiple", "past_index", "peft_init", "per_device_eval", "pin_memory",
    "plot_loss", "prediction_loss", "preprocessing", "print_param", "project", "push_to_hub", "rdzv",
    "remove_unused", "repetition_penalty", "report_to", "restore_callback", "resume", "roles", "router_aux",
    "run_name", "same_network", "sample_packing_", "save_", "save_safetensors", "saves_per", "seed", "sglang_",
    "shuffle", "skip_memory", "skip_prepare", "special_tokens", "split_special", "stage3_gather", "steps_per_print",
    "streaming", "strict", "swanlab", "temperature", "template", "test_datasets", "tf32", "tokenizer",
    "tokenizer_type", "tool_format", "top_k", "top_p", "torchdynamo", "tpu_", "trackio", "train_batch_size",
    "train_micro", "train_on", "train_sampling", "truncation_mode", "trust_remote", "type", "use_cpu", "use_fast",
    "use_legacy", "use_swanlab", "use_tensorboard", "val_set_size", "val_size", "video_", "vllm_", "wall_clock",
    "wandb", "warmup", "weight_decay", "world_size", "zero3_init", "zero3_save", "zero_allow",
)  # fmt: skip
"""What such names begin with: learning rate and schedule, logging, saving, naming and preparing data, generation."""

COSTLY: Mapping[str, str] = {
    "modules_to_save": "trains and stores whole modules",
    "lora_modules_to_save": "trains and stores whole modules",
    "additional_target": "trains and stores whole modules",
    "lora_target_parameters": "adapts parameters that are not linear layers",
    "target_parameters": "adapts parameters that are not linear layers",
    "peft_layers_to_transform": "adapts some layers only",
    "peft_trainable_token_indices": "trains rows of the embedding",
    "peft_layer_replication": "repeats layers",
    "lora_rank_pattern": "gives some layers another rank",
    "unfrozen_parameters": "trains a part of the weights only",
    "torch_compile": "fuses operations, which keeps fewer activations",
    "auto_find_batch_size": "halves the micro-batch until it fits",
    "activation_offloading": "moves activations to the host",
    "layer_offloading": "moves layers to the host",
    "selective_checkpointing": "keeps some activations under checkpointing",
    "tiled_mlp": "runs the MLP in tiles",
    "neftune_noise_alpha": "adds a copy of the embedded tokens",
    "torch_empty_cache_steps": "frees cached memory: --dry-run with --torch-empty-cache-steps shows it",
    "resize_vocab": "may add rows to embedding and head",
    "use_unsloth": "replaces layers, checkpointing and loss by Unsloth's",
    "use_unsloth_gc": "moves checkpoints to the host",
    "use_galore": "keeps the optimizer states of a projection",
    "use_apollo": "keeps the optimizer states of a projection",
    "use_badam": "trains a block at a time",
    "use_muon": "is another optimizer",
    "use_adam_mini": "is another optimizer",
    "shift_attn": "computes attention in groups",
    "lora_mlp_kernel": "recomputes inside fused adapter kernels",
    "lora_qkv_kernel": "recomputes inside fused adapter kernels",
    "lora_o_kernel": "recomputes inside fused adapter kernels",
    "context_parallel_size": "splits sequences over GPUs",
    "sequence_parallel_degree": "splits sequences over GPUs",
    "tensor_parallel_size": "splits layers over GPUs",
    "parallelism_config": "splits work over GPUs",
    "chunked_cross_entropy": "cuts the loss into chunks",
    "fp8": "computes in 8 bit",
    "gptq": "loads a GPTQ checkpoint, which --quant-type gptq prices",
    "allgather_bucket_size": "is the size of a buffer",
    "reduce_bucket_size": "is the size of a buffer",
    "stage3_prefetch_bucket_size": "is the size of a buffer",
    "stage3_max_live_parameters": "decides how many gathered weights are kept",
    "stage3_param_persistence_threshold": "decides which weights are never split",
}
"""Settings that are understood to cost or save memory, which is not priced."""

_OFF: tuple[object, ...] = (False, 0, "no", "", "default", "auto", [], {})
"""What a setting holds that is written out but off, or left to the tool."""


def unread(settings: Settings) -> Iterator[str]:
    """One note for each setting that is on, that nothing has read, and that may matter; sections too."""
    for section in settings.sections.values():
        yield from unread(section)
    for name in settings.left():
        value = settings.values[name]
        if value in _OFF:
            continue
        full = f"{settings.prefix}{name}"
        if name in COSTLY:
            yield f"{full} {COSTLY[name]}: that is not priced."
        elif not name.startswith(HARMLESS):
            yield f"{full} of the {settings.tool} file is unknown here and is not priced: it may change the memory."
