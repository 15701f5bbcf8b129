"""Turn tables of published training speeds (CSV) into rows whose recipes are in the words of `plan`.

    python results/published/convert_throughput.py TABLE.csv … results/published/throughput.csv

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
    "id", "source", "citation", "gpu", "gpus", "nodes", "strategy", "cpu_offload", "link", "framework", "model",
    "method", "quant_type", "double_quant", "compute_dtype", "upcast_unquantized", "r", "target_modules",
    "num_virtual_tokens", "adapter_dtype", "sequence_length", "padded", "micro_batch_size",
    "gradient_accumulation_steps", "gradient_checkpointing", "use_reentrant", "dtype", "autocast", "attention",
    "flash_attention", "fused_kernels", "optimizer", "loss", "step_s", "notes",
)  # fmt: skip
GPUS = {
    "H100-SXM": "h100-sxm", "A100-80GB-SXM": "a100-80gb", "A100-40GB-SXM": "a100-40gb", "L40S": "l40s",
    "RTX-4090": "rtx4090", "RTX-A6000": "a6000", "RTX-3090": "rtx3090", "RTX-A5000": "a5000",
    "RTX-6000-Ada": "rtx6000-ada", "T4": "t4",
}  # fmt: skip
LITGPT_TOKENS = 110
"""Mean tokens of an Alpaca sample with its prompt. Not stated by the source, and hardly of weight: the times of one,
two and four samples differ by a twentieth, because launches take longer than the card."""
LITGPT_MODELS = {
    "phi-1.5": "phi-1.5", "StableLM Alpha": "StableLM-Alpha-3B", "Llama 2": "Llama-2-{}b",
}  # fmt: skip
PEFT_TOKENS = 238
"""Mean tokens of a padded sample in those runs, whose batches are sorted by length; 210 without padding."""
PEFT_VIRTUAL_TOKENS = {"prompt_tuning": 200, "prefix_tuning": 200, "p_tuning": 20}
"""From the parameters that those runs trained (peft-metamathqa.jsonl): 200 × 3,072; a name may say another number."""
WITHOUT_FORMULA = {"peft:adamss", "peft:frod", "peft:trainable_tokens", "peft:osf"}
"""Adapters whose size is not modelled, and whose runs name tensors that are not stated."""
PURE = {"autocast": "no"}
"""bfloat16 throughout: MosaicML's low-precision norms under FSDP, DeepSpeed's engine, torchtune, litgpt's bf16-true,
and PEFT's benchmark, which asks for no autocast."""
LITGPT_LORA = {"1,572,864", "2,097,152", "4,194,304", "6,553,600"}
"""Trained parameters of its LoRA rows (r 8 on queries and values); the others are LLaMA-Adapter."""


FSDP_QLORA = {
    "autocast": "yes", "use_reentrant": "yes", "adapter_dtype": "bfloat16", "r": "64",
    "target_modules": "q_proj,k_proj,v_proj,gate_proj,up_proj,down_proj",
    "loss": "transformers-4",
}
"""Defaults of its train.py."""
OLD_BOARD = "pcie3-x8"
"""Inferred: two RTX 3090 on "an old board" gather 13.5 GB of weights twice in the 5 s that a short step takes."""
SAME = {"Qwen/Qwen2.5-1.5B-Instruct": "Qwen/Qwen2.5-1.5B"}
"""Models of one shape, of which the catalogue has the second."""


def main() -> None:
    """Read the tables and write the rows."""
    *tables, out = sys.argv[1:]
    rows = []
    for table in tables:
        with open(table, encoding="utf-8", newline="") as file:
            rows += [found for row in csv.DictReader(file) if (found := recipe(row))]
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({"id": f"speed-{place:03}", **row} for place, row in enumerate(rows, start=1))


def recipe(row: Row) -> Row | None:
    """The row in plan's words, by its source; None for what is left out."""
    if row.get("id", "").startswith("fitcheck-t4"):
        return next(fitcheck(row), None)
    readers = {
        "llm-foundry": foundry, "torchtune": torchtune, "QwenLM": qwen, "MetaMathQA": peft, "resource": litgpt,
        "fsdp_qlora": fsdp_qlora,
    }  # fmt: skip
    for mark, read in readers.items():
        if mark in row["source"]:
            found = next(read(row), None)
            return found and {**_shared(row), **found}
    return None


def foundry(row: Row) -> Iterator[Row]:
    """Eight cards a node. Master weights are float32, what is gathered and multiplied is bfloat16.

    Its attention is the first FlashAttention's, in Triton.
    """
    if "fp8" in row["precision"]:
        return
    strategy = "fsdp-grad-op" if "SHARD_GRAD_OP" in row["framework"] else "fsdp"
    yield {
        "source": "llm-foundry", "framework": "transformers", "strategy": strategy, "loss": "fused", **PURE,
        "flash_attention": "1",
    }  # fmt: skip


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
        **PURE,
        "adapter_dtype": "bfloat16" if row["method"] != "full" else "",
        "loss": "chunked",
        "quant_type": "nf4" if row["method"] == "qlora" else "",
        "r": "8" if row["method"] != "full" else "",
    }


def qwen(row: Row) -> Iterator[Row]:
    """Full fine-tuning runs under DeepSpeed on one card too (finetune_ds.sh, ZeRO-3); LoRA alone on one does not.

    Its model takes flash-attn's kernels for norms and rotary embedding where that is installed.
    """
    sharded = row["method"] == "full" or "ZeRO" in row["framework"]
    yield {
        "source": "Qwen",
        "framework": "transformers",
        "strategy": "zero3" if sharded else "none",
        "optimizer": "adamw_torch_fused" if sharded else "adamw_torch",
        "quant_type": "gptq" if row["method"] == "qlora" else "",
        "r": "64" if row["method"] != "full" else "",
        "loss": "transformers-4",
        "fused_kernels": "norm-rope",
        **(PURE if sharded else {}),
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
        **PURE,
        "padded": "yes",
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
        **PURE,
        "adapter_dtype": "bfloat16",
    }


def fsdp_qlora(row: Row) -> Iterator[Row]:
    """Two and more cards of a machine; its DDP is FSDP without sharding. Runs that offload activations are left out."""
    if "activation offload" in row["framework"]:
        return
    yield {
        "source": "answer.ai",
        "framework": "transformers",
        "strategy": "ddp" if "DDP" in row["framework"] else "fsdp",
        "cpu_offload": str("offload" in row["framework"] or ""),
        "link": OLD_BOARD if row["gpu"] == "RTX-3090" else "",
        "quant_type": "nf4" if row["method"] == "qlora" else "",
        "optimizer": "adamw_torch",
        "notes": row["framework"],
        **FSDP_QLORA,
    }


def fitcheck(row: Row) -> Iterator[Row]:
    """A plain loop in float16 on a T4, each run once. Grouped heads under SDPA were pinned to a kernel: left out."""
    quantized, eager = row["base_quant"] == "nf4", row["attn_impl"] == "eager"
    if not row["metric"].startswith("allocated") or not (eager or "SmolLM2-1.7B" in row["model_hf_id"]):
        return
    four_bit = {
        "quant_type": "nf4", "double_quant": "no", "compute_dtype": "float16", "upcast_unquantized": "yes"
    }  # fmt: skip
    yield {
        "source": "fitcheck",
        "citation": f"{row['source_repo_or_page']} {row['source_path']}",
        "gpu": GPUS[row["gpu_model"]],
        "gpus": "1", "nodes": "1", "strategy": "none", "framework": "transformers",
        "model": SAME.get(row["model_hf_id"], row["model_hf_id"]),
        "method": row["method"],
        "r": row["lora_rank"],
        "target_modules": row["target_modules"],
        "sequence_length": row["seq_len_max"],
        "micro_batch_size": row["micro_batch"],
        "gradient_accumulation_steps": "1",
        "gradient_checkpointing": "yes" if row["grad_checkpointing"].startswith("true") else "no",
        "dtype": "float16", "autocast": "no", "attention": "eager" if eager else "sdpa",
        "optimizer": row["optimizer"],
        "step_s": f"{float(row['step_time_s']):.4g}",
        "notes": row["id"].removesuffix("-allocated"),
        **(four_bit if quantized else {}),
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
        "autocast": "yes",
        "padded": "no",
        "step_s": str(step_s),
        "notes": row["notes"],
    }


def _seconds(row: Row, steps: int) -> str:
    tokens = int(row["seq_len"]) * int(row["micro_batch"]) * steps
    return f"{tokens / float(row['tokens_per_s_per_gpu']):.4g}"


if __name__ == "__main__":
    main()
