"""Turn a table of published training speeds (CSV) into rows whose recipes are in the words of `plan`.

    python results/published/convert_throughput.py throughput.csv results/published/throughput.csv

Each function reads one source, with the reason beside whatever the source does not state. Rows that cannot be priced
are left out here (README.md says which); rows that are impossible are kept, and rejected by the harness.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator

Row = dict[str, str]

FIELDS = (
    "id", "source", "citation", "gpu", "gpus", "nodes", "strategy", "cpu_offload", "framework", "model", "method",
    "quant_type", "r", "target_modules", "num_virtual_tokens", "sequence_length", "micro_batch_size",
    "gradient_accumulation_steps", "gradient_checkpointing", "optimizer", "loss", "step_s", "notes",
)  # fmt: skip
GPUS = {
    "H100-SXM": "h100-sxm", "A100-80GB-SXM": "a100-80gb", "A100-40GB-SXM": "a100-40gb", "L40S": "l40s",
    "RTX-4090": "rtx4090", "RTX-A6000": "a6000",
}  # fmt: skip
LITGPT_TOKENS = 110
"""Mean tokens of an Alpaca sample with its prompt. Not stated by the source, and hardly of weight: the times of one,
two and four samples differ by a twentieth, because launches take longer than the card."""
LITGPT_MODELS = {
    "phi-1.5": "phi-1.5", "StableLM Alpha": "StableLM-Alpha-3B", "Llama 2": "Llama-2-{}b",
}  # fmt: skip
PEFT_TOKENS = 210
"""Mean tokens of a MetaMathQA sample in those runs, without padding."""
PEFT_VIRTUAL_TOKENS = {"prompt_tuning": 200, "prefix_tuning": 200, "p_tuning": 20}
"""From the parameters that those runs trained (peft-metamathqa.jsonl): 200 × 3,072; a name may say another number."""
WITHOUT_FORMULA = {"peft:adamss", "peft:frod", "peft:trainable_tokens", "peft:osf"}
"""Adapters whose size is not modelled, and whose runs name tensors that are not stated."""
LITGPT_LORA = {"1,572,864", "2,097,152", "4,194,304", "6,553,600"}
"""Trained parameters of its LoRA rows (r 8 on queries and values); the others are LLaMA-Adapter."""


def main() -> None:
    """Read the table and write the rows."""
    table, out = sys.argv[1:]
    with open(table, encoding="utf-8", newline="") as file:
        rows = [found for row in csv.DictReader(file) if (found := recipe(row))]
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"id": f"speed-{place:03}", **row} for place, row in enumerate(rows, start=1))


def recipe(row: Row) -> Row | None:
    """The row in plan's words, by its source; None for what is left out."""
    readers = {"llm-foundry": foundry, "torchtune": torchtune, "QwenLM": qwen, "MetaMathQA": peft, "resource": litgpt}
    for mark, read in readers.items():
        if mark in row["source"]:
            found = next(read(row), None)
            return found and {**_shared(row), **found}
    return None


def foundry(row: Row) -> Iterator[Row]:
    """Eight cards a node. Master weights are float32, what is gathered and multiplied is bfloat16."""
    if "fp8" in row["precision"]:
        return
    strategy = "fsdp-grad-op" if "SHARD_GRAD_OP" in row["framework"] else "fsdp"
    yield {"source": "llm-foundry", "framework": "transformers", "strategy": strategy, "loss": "fused"}


def torchtune(row: Row) -> Iterator[Row]:
    """The unpacked run is left out: its tokens are real ones, and how many were padding is not stated."""
    if "NOT packed" in row["notes"]:
        return
    compiled = "compile" in row["framework"] or row["notes"] not in ("packed eager",)
    many = int(row["count"]) > 1
    yield {
        "source": "torchtune",
        "framework": "torchtune" if compiled else "transformers",
        "strategy": "fsdp" if many else "none",
        "cpu_offload": str("offload+fused" in row["notes"] or ""),
        "optimizer": "adamw_bnb_8bit" if "8bit" in row["notes"] else "adamw_torch_fused",
        "loss": "chunked",
        "quant_type": "nf4" if row["method"] == "qlora" else "",
        "r": "8" if row["method"] != "full" else "",
    }


def qwen(row: Row) -> Iterator[Row]:
    """Full fine-tuning runs under DeepSpeed on one card too (finetune_ds.sh, ZeRO-3); LoRA alone on one does not."""
    sharded = row["method"] == "full" or "ZeRO" in row["framework"]
    yield {
        "source": "Qwen",
        "framework": "transformers",
        "strategy": "zero3" if sharded else "none",
        "optimizer": "adamw_torch_fused" if sharded else "adamw_torch",
        "quant_type": "gptq" if row["method"] == "qlora" else "",
        "r": "64" if row["method"] != "full" else "",
        "loss": "transformers-4",
    }


def peft(row: Row) -> Iterator[Row]:
    """LoRA is on queries and values, or on the MLP where the name says so; other types have PEFT's defaults."""
    name = row["notes"].partition(";")[0].partition("--llama-3.2-3B-")[2]
    if row["method"] in WITHOUT_FORMULA or "lorafa" in name or "bdlora" in name:
        return
    rank = re.search(r"rank(\d+)", name)
    lora, kind = row["method"] == "lora", row["method"].removeprefix("peft:")
    virtual = re.search(r"tokens(\d+)", name)
    yield {
        "source": "PEFT",
        "framework": "transformers",
        "method": kind,
        "num_virtual_tokens": virtual.group(1) if virtual else str(PEFT_VIRTUAL_TOKENS.get(kind, "")),
        "sequence_length": str(PEFT_TOKENS),
        "optimizer": "adamw_torch",
        "r": rank.group(1) if rank and lora else "",
        "target_modules": ("gate_proj,up_proj,down_proj" if "mlp" in name else "q_proj,v_proj") if lora else "",
        "notes": name,
    }


def litgpt(row: Row) -> Iterator[Row]:
    """Micro-steps of 2023, of 16 bit and NF4; only the LoRA rows."""
    trained = row["notes"].rpartition(": ")[2]
    if trained not in LITGPT_LORA:
        return
    yield {
        "source": "litgpt",
        "framework": "transformers",
        "model": LITGPT_MODELS[row["model"]].format(row["params_b"]),
        "sequence_length": str(LITGPT_TOKENS),
        "gradient_checkpointing": "no",
        "quant_type": "nf4" if row["method"] == "qlora" else "",
        "r": "8",
        "target_modules": "query_key_value" if "StableLM" in row["model"] else "q_proj,v_proj",
        "notes": row["quant"],
    }


def _shared(row: Row) -> Row:
    """The seconds of a step: as published, or tokens by speed."""
    count = int(row["count"])
    steps = int(row["grad_accum"] or 1)
    step_s = row["step_s"] or _seconds(row, steps)
    return {
        "citation": row["source"],
        "gpu": GPUS[row["gpu"]],
        "gpus": str(count),
        "nodes": str(max(1, count // 8)),
        "strategy": "none",
        "model": row["model"],
        "method": row["method"],
        "sequence_length": row["seq_len"],
        "micro_batch_size": row["micro_batch"],
        "gradient_accumulation_steps": str(steps),
        "gradient_checkpointing": "yes" if row["checkpointing"].startswith("full") else "no",
        "step_s": str(step_s),
        "notes": row["notes"],
    }


def _seconds(row: Row, steps: int) -> str:
    tokens = int(row["seq_len"]) * int(row["micro_batch"]) * steps
    return f"{tokens / float(row['tokens_per_s_per_gpu']):.4g}"


if __name__ == "__main__":
    main()
