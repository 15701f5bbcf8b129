"""A training script for transformers and PEFT: the recipe as constants, and a short program that runs them."""

from __future__ import annotations

import json
from typing import Any

from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.peft_config import adapter_options
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import TrainingSpec
from peftbench.recipes.sharding import trainer_values
from peftbench.recipes.trainer import arguments, bitsandbytes_values

_MORE = {"num_train_epochs": 1, "learning_rate": 2e-4, "logging_steps": 10, "save_strategy": "no", "report_to": []}


def constants(model: str, recipe: TrainingSpec) -> dict[str, Any]:
    """What the script says before its program."""
    adapter, quantization = recipe.adapter, recipe.quantization
    upcast = "nothing"
    if quantization:
        upcast = "unquantized" if quantization.upcast_unquantized else "norms" if quantization.upcast_norms else upcast
    return {
        "MODEL": model,
        "DTYPE": recipe.dtype.value,
        "ATTENTION": recipe.attention,
        "SEQUENCE_LENGTH": recipe.sequence_length,
        "PADDED": recipe.padded,
        "TRAINING_ARGUMENTS": {**arguments(recipe), **trainer_values(recipe), **_MORE},
        "ADAPTER": _adapter(adapter) if adapter else None,
        "ADAPTER_DTYPE": adapter.dtype.value if adapter else None,
        "QUANTIZATION": _quantization(recipe, quantization) if quantization else None,
        "UPCAST": upcast,
    }


def _adapter(adapter: AdapterSpec) -> dict[str, Any]:
    """PEFT's options; LoRA's alpha is twice the rank, as in the other tools' files."""
    scale = {"lora_alpha": 2 * adapter.r} if adapter.peft_type == "lora" and adapter.r else {}
    return {**adapter_options(adapter), **scale, "task_type": "CAUSAL_LM"}


def _quantization(recipe: TrainingSpec, quantization: QuantizationSpec) -> dict[str, Any]:
    """FSDP and ZeRO-3 split tensors of one floating type only: the codes are stored as such."""
    split = quantization.four_bit and recipe.parallelism.shards_weights
    return {**bitsandbytes_values(quantization), **({"bnb_4bit_quant_storage": recipe.dtype.value} if split else {})}


def text(model: str, recipe: TrainingSpec, header: str) -> str:
    """The whole script; `header` are comment lines."""
    lines = [f"{name} = {_written(value)}" for name, value in constants(model, recipe).items()]
    return "\n".join((_DOCSTRING, header.rstrip("\n"), _IMPORTS, *lines, _PROGRAM))


def _written(value: object, indent: str = "") -> str:
    """A constant as people write it: a mapping with an entry a line, text in double quotes."""
    if isinstance(value, dict) and value:
        inner = f"{indent}    "
        lines = [f"{inner}{json.dumps(name)}: {_written(each, inner)},\n" for name, each in value.items()]
        return "{\n" + "".join(lines) + indent + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


_DOCSTRING = '''"""Fine-tune with transformers and PEFT: python train.py DATASET [--output-dir DIR] [--max-steps N]

DATASET is a .jsonl file whose lines have a field "text", or a text file with a document a line.
"""
'''

_IMPORTS = '''
import argparse
import json
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Trainer, TrainingArguments
'''

_PROGRAM = '''

def read_texts(path):
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    return [json.loads(line)["text"] for line in lines] if path.endswith(".jsonl") else lines


def read_rows(path, tokenizer):
    """Rows of tokens: cut to the length where they are padded, else joined and cut into rows of that length."""
    texts = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in read_texts(path)]
    if PADDED:
        return [tokens[:SEQUENCE_LENGTH] for tokens in texts]
    stream = [token for tokens in texts for token in tokens]
    starts = range(0, len(stream) - SEQUENCE_LENGTH + 1, SEQUENCE_LENGTH)
    rows = [stream[start : start + SEQUENCE_LENGTH] for start in starts]
    if not rows:
        raise SystemExit(f"{path} has {len(stream)} tokens: fewer than one sequence of {SEQUENCE_LENGTH}.")
    return rows


def collate(rows):
    longest = max(map(len, rows))
    batch = {"input_ids": [], "labels": []} | ({"attention_mask": []} if PADDED else {})
    for row in rows:
        missing = longest - len(row)
        batch["input_ids"].append(row + [0] * missing)
        batch["labels"].append(row + [-100] * missing)
        if PADDED:
            batch["attention_mask"].append([1] * len(row) + [0] * missing)
    return {name: torch.tensor(values) for name, values in batch.items()}


def load_model():
    quantization = BitsAndBytesConfig(**QUANTIZATION) if QUANTIZATION else None
    gpu = int(os.environ.get("LOCAL_RANK", "0"))
    device = {"device_map": {"": gpu if torch.cuda.is_available() else "cpu"}} if QUANTIZATION else {}
    model = AutoModelForCausalLM.from_pretrained(
        MODEL, dtype=getattr(torch, DTYPE), attn_implementation=ATTENTION, quantization_config=quantization, **device
    )
    if UPCAST == "unquantized":
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    elif UPCAST == "norms":
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                module.float()
    return with_adapter(model) if ADAPTER else model


def with_adapter(model):
    from peft import get_peft_config, get_peft_model

    if TRAINING_ARGUMENTS["gradient_checkpointing"]:
        model.enable_input_require_grads()
    base = {id(parameter) for parameter in model.parameters()}
    model = get_peft_model(model, get_peft_config(dict(ADAPTER)), autocast_adapter_dtype=ADAPTER_DTYPE == "float32")
    if ADAPTER_DTYPE != "float32":
        for parameter in model.parameters():
            if id(parameter) not in base and parameter.is_floating_point():
                parameter.data = parameter.data.to(getattr(torch, ADAPTER_DTYPE))
    model.print_trainable_parameters()
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("--output-dir", default="out")
    parser.add_argument("--max-steps", type=int, default=-1)
    options = parser.parse_args()
    rows = read_rows(options.dataset, AutoTokenizer.from_pretrained(MODEL))
    arguments = TrainingArguments(
        output_dir=options.output_dir, max_steps=options.max_steps, use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False, **TRAINING_ARGUMENTS,
    )
    trainer = Trainer(model=load_model(), args=arguments, train_dataset=rows, data_collator=collate)
    trainer.train()
    trainer.save_model(options.output_dir)


if __name__ == "__main__":
    main()
'''
