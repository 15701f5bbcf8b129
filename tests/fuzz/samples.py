"""Valid files of every kind that is read, made by our own writers where there are any; each is made once."""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import peftbench
from peftbench.catalog.models import list_models
from peftbench.estimate.peft_types.table import METHODS

ROOT = Path(peftbench.__file__).parents[1]
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "word": 2}, "unk_token": "[UNK]"},
}  # fmt: skip
DATA = b"".join(
    json.dumps({"prompt": f"a word {n}", "answer": ["word", {"text": "é"}]}).encode() + b"\n" for n in range(20)
)
TRAINING_ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "optim": "adamw_torch_fused", "bf16": True,
    "fp16": False, "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "learning_rate": 2e-4, "output_dir": "out", "torch_empty_cache_steps": None, "deepspeed": None, "fsdp": "",
    "fsdp_config": {}, "use_liger_kernel": False, "max_steps": 10, "num_train_epochs": 3.0,
}  # fmt: skip
ACCELERATE: dict[str, Any] = {
    "compute_environment": "LOCAL_MACHINE", "distributed_type": "FSDP", "num_processes": 4, "num_machines": 1,
    "mixed_precision": "bf16", "fsdp_config": {"fsdp_version": 2, "fsdp_reshard_after_forward": True,
                                               "fsdp_activation_checkpointing": True, "fsdp_offload_params": False},
}  # fmt: skip
DEEPSPEED: dict[str, Any] = {
    "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "none"}},
    "bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": 4,
}  # fmt: skip
BITSANDBYTES = {
    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16", "quant_method": "bitsandbytes",
}  # fmt: skip


@lru_cache(maxsize=1)
def suites() -> dict[str, dict[str, Any]]:
    """Every shipped suite, and one small one with each key there is."""
    import yaml

    found = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "suites").glob("*.yaml"))
    }
    own = {"about": "All keys.", "kind": "training", "model": "135m", "device": "cpu", "gpu": "t4", "steps": 2,
           "warmup_steps": 2, "learning_rate": 1e-3, "seed": 0, "base": {"sequence_length": 32, "dtype": "float32"},
           "cases": {"lora": {"method": "lora", "r": 4}, "ia3": {"method": "ia3"}, "full": {"method": "full"}},
           "sweep": {"micro_batch_size": [1, 2]}}  # fmt: skip
    return {**found, "own": own, "own-2": own}


@lru_cache(maxsize=1)
def configs() -> tuple[dict[str, Any], ...]:
    """A config.json of each architecture of the catalogue."""
    return tuple({m.config["model_type"]: dict(m.config) for m in list_models() if m.has_formula}.values())


@lru_cache(maxsize=1)
def adapters() -> tuple[dict[str, Any], ...]:
    """An adapter_config.json of each PEFT type, LoRA four times."""
    usual: dict[str, Any] = {
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M", "task_type": "CAUSAL_LM", "inference_mode": True,
        "target_modules": ["q_proj", "v_proj"], "bias": "none", "modules_to_save": None, "peft_version": "0.21.2",
    }  # fmt: skip
    lora: dict[str, Any] = {
        "lora_alpha": 16, "lora_dropout": 0.05, "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": None,
        "fan_in_fan_out": False, "init_lora_weights": True, "loftq_config": {}, "megatron_config": None,
    }  # fmt: skip
    found = [{**usual, "peft_type": name.upper(), **method.options} for name, method in METHODS.items()]
    return (*found, *({**found[0], **lora},) * 4)


@lru_cache(maxsize=1)
def tool_files() -> tuple[tuple[str, str], ...]:
    """What `recipe` writes for every tool and three methods, by the ending of its name."""
    from cli_runner import run

    written = []
    for tool in ("transformers", "trl", "axolotl", "llamafactory", "accelerate", "deepspeed"):
        for method in ("full", "lora", "qlora"):
            for more in ((), ("--gpus", "4")):
                done = run("recipe", "--model", "135m", "--method", method, "--for", tool, *more)
                if done.exit_code == 0:
                    written.append(
                        ("py" if tool == "transformers" else "json" if tool == "deepspeed" else "yml", done.stdout)
                    )
    return tuple(written)


@lru_cache(maxsize=1)
def run_lines() -> tuple[dict[str, Any], ...]:
    """Records of runs, on a card and on a CPU, ended well and not."""
    from run_samples import samples

    from peftbench.records.run import record_to_json

    return tuple(json.loads(json.dumps(record_to_json(record))) for record in samples()[:-1])


@lru_cache(maxsize=1)
def comparison_lines() -> tuple[dict[str, Any], ...]:
    """Records of comparisons of both kinds."""
    from comparison_samples import latency_record, quality_record

    from peftbench.records.comparison import comparison_record_to_json

    records = (quality_record(), latency_record())
    return tuple(json.loads(json.dumps(comparison_record_to_json(record))) for record in records)


@lru_cache(maxsize=1)
def card_lines() -> tuple[dict[str, Any], ...]:
    """Records of one card, enough to calibrate it."""
    from calibrated_runs import card_runs

    from peftbench.records.run import record_to_json

    return tuple(json.loads(json.dumps(record_to_json(record))) for record in card_runs())


@lru_cache(maxsize=1)
def calibration() -> dict[str, Any]:
    """What `calibrate` makes of them."""
    from tempfile import TemporaryDirectory

    from cli_runner import run

    with TemporaryDirectory() as place:
        lines = "".join(json.dumps(line) + "\n" for line in card_lines())
        Path(place, "runs.jsonl").write_text(lines, encoding="utf-8")
        done = run("calibrate", f"{place}/runs.jsonl", "-o", f"{place}/l4.json")
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(Path(place, "l4.json").read_text(encoding="utf-8"))
    return found


class Published(NamedTuple):
    """What `validate` reads besides our own runs."""

    records: tuple[dict[str, Any], ...]
    speeds: tuple[tuple[str, ...], ...]
    """Rows of CSV, the heading first."""
    models: dict[str, Any]
    """Of the file beside it."""


@lru_cache(maxsize=1)
def published() -> Published:
    """The first of each."""
    folder = ROOT / "results" / "published"
    records = (folder / "peft-metamathqa.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    with open(folder / "throughput.csv", encoding="utf-8", newline="") as file:
        speeds = tuple(map(tuple, list(csv.reader(file))[:40]))
    models = json.loads((folder / "throughput_models.json").read_text(encoding="utf-8"))
    return Published(tuple(map(json.loads, records)), speeds, models)
