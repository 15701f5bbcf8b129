"""Turn a table of published memory measurements (CSV) into records, one JSON object a line.

    python results/published/convert.py measured_memory.csv results/published

The table has one row a figure and describes the run in words; this file is where those words become fields of
TrainingSpec, with the reason beside each. README.md says which rows are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from peftbench.check.memory.published import PublishedRecord, record_to_json
from peftbench.inputs.recipe import ONE_GPU, AdapterSpec, DType, ParallelismSpec, QuantizationSpec, TrainingSpec

Row = dict[str, str]

UNITS = {"GB": 10**9, "GiB": 2**30, "MiB": 2**20}
GPUS = {"A100-80GB": "a100-80gb", "L40S-48GB": "l40s"}
MODELS = {"TheBloke/Mistral-7B-v0.1-GPTQ": "mistralai/Mistral-7B-v0.1"}
"""A quantized checkpoint is the model it was made of; how it is stored belongs to the recipe."""
DTYPES = {"bf16": DType.BFLOAT16, "fp16": DType.FLOAT16}

PEFT_SEQUENCE_LENGTH = 696
"""The longest padded batch of the MetaMathQA runs, which is not stated: their texts are cut by characters.
It is inferred once, from LoRA r=32, and shared by every row of that source."""

PEFT_BATCH_LENGTHS = (100, PEFT_SEQUENCE_LENGTH)
"""Batches are sorted by length within a bucket, and the cache is emptied before the next bucket begins with its
longest: a short batch, an emptied cache, the longest batch."""
PEFT_EMPTY_CACHE_STEPS = 1

_OTHER_IMPLEMENTATION = {"peft-019-max"}
"""OFT of PEFT 0.15 had twice the parameters of today's, and other arithmetic."""

FMS_GPUS = ("1", "2", "4")
"""Runs on eight are mixtures of experts."""

_ADALORA_INITIAL_RANK = 64
"""init_r of that experiment; the table's rank is the target that AdaLoRA prunes to."""

LOSSES = {"materialised": "transformers-4", "fused": "fused", "liger": "liger"}
"""The first word of the table's column; which tensors that means differs by generation of transformers."""

LORA_DROPOUT = 0.05
"""lora_dropout of fms-hf-tuning's LoraConfig; its size decides no bytes, only that it is not zero."""


def main() -> None:
    """Read the table and write one file a source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with open(arguments.table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, records in (("fms-acceleration", fms_records(rows)), ("peft-metamathqa", peft_records(rows))):
        lines = [json.dumps(record, separators=(", ", ": ")) for record in records]
        (arguments.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


# ── foundation-model-stack/fms-acceleration ──────────────────────────────────────────────────────────────


def fms_records(rows: Iterable[Row]) -> Iterator[dict[str, object]]:
    """Runs of dense models whose inputs are all known: the allocated peak, and nvidia-smi's."""
    rows = [row for row in rows if row["source_repo_or_page"].endswith("fms-acceleration")]
    known = {
        row["id"].removesuffix("-peak")
        for row in rows
        if row["metric"] == "allocated_max" and row["completeness"] == "A" and row["num_gpus"] in FMS_GPUS
    }
    for row in rows:
        if row["id"].rpartition("-")[0] in known and row["metric"] in ("allocated_max", "nvml_used"):
            yield _record(row, _fms_training(row))


def _fms_training(row: Row) -> TrainingSpec:
    configuration = re.search(r"framework_config=([\w-]+)", row["notes"])[1]
    return TrainingSpec(
        sequence_length=int(row["seq_len_max"]),
        micro_batch_size=int(row["micro_batch"]),
        gradient_checkpointing=True,
        dtype=DTYPES[row["weight_dtype"]],
        autocast=row["autocast_dtype"] != "none",
        optimizer="adamw_torch",
        attention="flash_attention_2",
        loss=LOSSES[row["fused_or_chunked_loss"].split()[0]],
        use_reentrant=True,  # the default of TrainingArguments in transformers 4
        fused_kernels="norm-rope" if "foak" in configuration else "none",
        transformers=_stack(row)["transformers"][:4],
        # checkpointing switches the cache off in every model of transformers 4.48 but this one
        use_cache="gpt_bigcode" in row["model_hf_id"],
        adapter=_fms_adapter(row),
        quantization=_fms_quantization(row, configuration),
        parallelism=_fms_parallelism(row),
    )


def _fms_parallelism(row: Row) -> ParallelismSpec:
    """FULL_SHARD; a unit a decoder layer, as accelerate's fsdp_transformer_layer_cls_to_wrap says.

    Quantized models were whole on each GPU while they were loaded: that is by how much the devices hold more.
    """
    if row["num_gpus"] == "1":
        return ONE_GPU
    loading = None if row["base_quant"] == "none" else "whole"
    return ParallelismSpec(gpus=int(row["num_gpus"]), strategy="fsdp", loading=loading)


def _fms_adapter(row: Row) -> AdapterSpec | None:
    """PEFT takes the target modules that the model has: one list named those of two architectures."""
    if row["method"] == "full":
        return None
    names = row["target_modules"].split(",")
    has = {"c_attn"} if "gpt_bigcode" in row["model_hf_id"] else {"q_proj", "k_proj", "v_proj", "o_proj"}
    targets = tuple(name for name in names if name in has)
    return AdapterSpec(r=int(row["lora_rank"]), target_modules=targets, dropout=LORA_DROPOUT)


def _fms_quantization(row: Row, configuration: str) -> QuantizationSpec | None:
    if row["base_quant"] == "none":
        return None
    if row["base_quant"] == "int4-gptq":
        return QuantizationSpec(
            quant_type="gptq", blocksize=128, double_quant=False, compute_dtype=DType.FLOAT16
        )
    upcasts = configuration == "baseline-peft-bnb"
    bfloat16 = row["weight_dtype"] == "bf16"  # trl's peft_module_casting_to_bf16 follows PEFT's upcast
    return QuantizationSpec(
        quant_type=row["base_quant"],
        double_quant=row["double_quant"] == "true",
        compute_dtype=DTYPES[row["weight_dtype"]],
        upcast_unquantized=upcasts and not bfloat16,
        upcast_norms=upcasts and bfloat16,
    )


# ── huggingface/peft method_comparison/MetaMathQA ────────────────────────────────────────────────────────


def peft_records(rows: Iterable[Row]) -> Iterator[dict[str, object]]:
    """The maximum reserved by the plain loop of method_comparison's run.py."""
    for row in rows:
        if row["source_path"].startswith("method_comparison/") and row["metric"] == "reserved_max":
            if row["id"] in _OTHER_IMPLEMENTATION:
                continue
            yield _record(row, _peft_training(row), PEFT_BATCH_LENGTHS, PEFT_EMPTY_CACHE_STEPS)


def _peft_training(row: Row) -> TrainingSpec:
    return TrainingSpec(
        sequence_length=PEFT_SEQUENCE_LENGTH,
        padded=True,
        micro_batch_size=4,
        gradient_checkpointing=False,
        autocast=False,
        optimizer="adamw_torch",
        loss="transformers",
        loop="plain",
        use_cache=True,
        adapter=_peft_adapter(row),
    )


def _peft_adapter(row: Row) -> AdapterSpec | None:
    """The table's rank column holds whatever number decides the method's size."""
    peft_type, size = row["adapter_type"], row["lora_rank"]
    targets = tuple(row["target_modules"].split(",")) if row["target_modules"] else None
    if not peft_type:
        return None
    if peft_type in ("prompt_tuning", "prefix_tuning", "p_tuning"):
        return AdapterSpec(peft_type=peft_type, options=(("num_virtual_tokens", int(size)),))
    dora = peft_type == "lora+dora"
    rank = int(size) if size else None
    rank = _ADALORA_INITIAL_RANK if peft_type == "adalora" else rank
    return AdapterSpec(peft_type="lora" if dora else peft_type, r=rank, target_modules=targets, use_dora=dora)


# ── one record ───────────────────────────────────────────────────────────────────────────────────────────


def _record(
    row: Row, training: TrainingSpec, batch_lengths: tuple[int, ...] = (), empty_cache_steps: int = 0
) -> dict[str, object]:
    """The row as a record; sizes are exact integers, because the table gives decimals of a unit."""
    record = PublishedRecord(
        id=row["id"],
        repository=row["source_repo_or_page"],
        path=row["source_path"],
        commit=row["source_commit_or_date"],
        model=MODELS.get(row["model_hf_id"], row["model_hf_id"]),
        training=training,
        trainable_parameters=int(row["trainable_params"]) if row["trainable_params"] else None,
        gpu=GPUS[row["gpu_model"]],
        metric=row["metric"],
        measured_bytes=int(Decimal(row["measured_value"]) * UNITS[row["unit"]]),
        stack=_stack(row),
        notes=row["notes"],
        batch_lengths=batch_lengths,
        torch_empty_cache_steps=empty_cache_steps,
    )
    return record_to_json(record)


def _stack(row: Row) -> dict[str, str]:
    """"torch2.4.1 transformers4.48.1" and "torch 2.7.1+cu126 peft 0.15.2": the versions in the notes."""
    names = r"torch|transformers|peft|trl|bnb|flash-attn|accelerate"
    return dict(re.findall(rf"\b({names}) ?(\d[\w.+]*)", row["notes"]))


if __name__ == "__main__":
    main()
