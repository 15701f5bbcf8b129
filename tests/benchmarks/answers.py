"""What the commands answer for some two thousand recipes, written down and compared: for changes that change nothing.

    python tests/benchmarks/answers.py write before.jsonl
    …
    python tests/benchmarks/answers.py write after.jsonl
    python tests/benchmarks/answers.py compare before.jsonl after.jsonl             # to the byte
    python tests/benchmarks/answers.py compare before.jsonl after.jsonl --numbers   # without the wording

It asks through the command line, so that it can be run on any version of the package.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

SEED = 20261128
METHODS = ("full", "lora", "qlora")
MODELS = (
    "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-70b-hf",
    "meta-llama/Meta-Llama-3-8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-405B",
    "meta-llama/Llama-3.3-70B-Instruct", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "codellama/CodeLlama-7b-hf",
    "codellama/CodeLlama-13b-hf", "codellama/CodeLlama-34b-hf", "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B",
    "HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-1.7B",
    "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.3", "mistralai/Mistral-Large-Instruct-2407",
    "mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x22B-v0.1", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-14B", "Qwen/Qwen2.5-32B", "Qwen/Qwen2.5-72B",
    "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B", "google/gemma-2b", "google/gemma-7b", "google/gemma-2-2b",
    "google/gemma-2-9b", "google/gemma-2-27b", "google/gemma-3-1b-it", "google/gemma-3-4b-it",
    "google/gemma-3-12b-it", "google/gemma-3-27b-it", "EleutherAI/pythia-70m", "EleutherAI/pythia-160m",
    "EleutherAI/pythia-410m", "EleutherAI/pythia-1b", "EleutherAI/pythia-1.4b", "EleutherAI/pythia-2.8b",
    "EleutherAI/pythia-6.9b", "EleutherAI/pythia-12b", "microsoft/phi-1_5", "microsoft/phi-2",
    "microsoft/Phi-3-mini-4k-instruct", "microsoft/phi-4", "microsoft/Phi-4-mini-instruct", "allenai/OLMo-2-1124-7B",
    "allenai/OLMo-2-1124-13B", "allenai/OLMoE-1B-7B-0924", "openai-community/gpt2", "openai-community/gpt2-medium",
    "openai-community/gpt2-large", "openai-community/gpt2-xl", "facebook/opt-125m", "facebook/opt-350m",
    "facebook/opt-1.3b", "facebook/opt-6.7b", "facebook/opt-13b", "openai/gpt-oss-20b", "openai/gpt-oss-120b",
    "huggyllama/llama-7b", "huggyllama/llama-13b", "huggyllama/llama-30b", "huggyllama/llama-65b",
    "HuggingFaceTB/SmolLM3-3B", "bigcode/gpt_bigcode-santacoder",
)  # fmt: skip
"""Some of the catalogue, by id: questions stay the same when it grows or a size stands for another model."""
SMALL = ("135m", "0.5b", "1b", "2b", "gpt2", "opt-125m", "pythia-160m", "phi-1_5", "gemma-3-1b-it", "SmolLM3-3B")
LARGER = (
    "8b", "8x7b", "20b", "huggyllama/llama-30b", "70b", "mistral-7b", "google/gemma-2-9b", "Qwen/Qwen3-30B-A3B",
    "phi-4",
)  # fmt: skip
CARDS = ("t4", "l4", "v100-16gb", "rtx3090", "rtx4090", "a100-80gb", "h100-sxm", "h200-nvl", "b200", "mi300x")
PEFT_TYPES = (
    "adalora", "hira", "loha", "lokr", "oft", "boft", "ia3", "vera", "pvera", "randlora", "fourierft", "waveft",
    "glora", "hra", "miss", "road", "shira", "ln_tuning", "delora", "psoft", "osf", "supertuning", "unilora",
    "tinylora", "cartridge", "cpt", "trainable_tokens", "prompt_tuning", "prefix_tuning", "p_tuning", "poly",
    "multitask_prompt_tuning", "xlora", "c3a", "deft", "peanut", "frod", "adamss", "lily", "gralora", "bdlora",
)  # fmt: skip
RECIPE: dict[str, tuple[str, ...]] = {
    "--sequence-length": ("128", "512", "1000", "4096", "8192"),
    "--micro-batch-size": ("1", "2", "3", "8"),
    "--gradient-accumulation-steps": ("1", "4"),
    "--dtype": ("bfloat16", "float16", "float32"),
    "--optimizer": (
        "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd",
        "lion_8bit", "adamw_bnb_8bit", "rmsprop", "adagrad", "ademamix", "lion_32bit", "stable_adamw", "galore_adamw",
    ),
    "--attention": ("sdpa", "flash_attention_2", "eager"),
    "--loss": ("transformers", "transformers-4", "fused", "fused-5", "liger", "chunked"),
    "--fused-kernels": ("none", "norm-rope", "liger"),
    "--transformers": ("5", "4.48", "4.45", "4.39"),
    "--loop": ("trainer", "plain"),
    "--zero-grad": ("set-to-none", "keep"),
}  # fmt: skip
SWITCHES = (
    "--no-gradient-checkpointing", "--use-reentrant", "--no-autocast", "--padded", "--use-cache",
)  # fmt: skip
ADAPTER: dict[str, tuple[str, ...]] = {
    "--r": ("4", "8", "64"),
    "--target-modules": ("all-linear", "q_proj,v_proj"),
    "--adapter-dtype": ("float32", "bfloat16"),
    "--lora-dropout": ("0.05",),
}
QUANTIZATION: dict[str, tuple[str, ...]] = {
    "--quant-type": ("nf4", "fp4", "int8", "gptq"),
    "--compute-dtype": ("bfloat16", "float16", "float32"),
}
QUANTIZATION_SWITCHES = ("--no-double-quant", "--upcast-unquantized", "--upcast-norms")


def some(chance: random.Random, choices: dict[str, tuple[str, ...]], share: float) -> list[str]:
    """Each option with a chance of `share`, at one of its values."""
    words = []
    for name, values in choices.items():
        if chance.random() < share:
            words += [name, chance.choice(values)]
    return words


def questions() -> Iterator[list[str]]:
    """The command lines, in a fixed order."""
    for model in MODELS:
        for method in METHODS:
            for checkpointing in ("--gradient-checkpointing", "--no-gradient-checkpointing"):
                yield [*plan(model, "a100-80gb", method), checkpointing, "--micro-batch-size", "2"]
        yield [*plan(model, "t4", "qlora"), "--task", "inference"]
        yield [*plan(model, "h100-sxm", "lora"), "--task", "inference", "--adapter", "merged", "--batch-size", "4"]
    for peft_type in PEFT_TYPES:
        for method in (peft_type, f"q{peft_type}"):
            for model in ("1b", "gpt2"):
                yield plan(model, "l4", method)
        yield [*plan("0.5b", "t4", peft_type), "--no-gradient-checkpointing", "--dtype", "float16"]
    yield from random_questions(random.Random(SEED))
    yield from screens()


def plan(model: str, card: str, method: str) -> list[str]:
    return ["plan", "--model", model, "--gpu", card, "--method", method, "--format", "json"]


def random_questions(chance: random.Random) -> Iterator[list[str]]:
    """Recipes of every option, on one card and on several."""
    for _ in range(900):
        method = chance.choice((*METHODS, "lora", "qlora"))
        question = plan(chance.choice(SMALL + LARGER), chance.choice(CARDS), method)
        question += some(chance, RECIPE, 0.25) + [word for word in SWITCHES if chance.random() < 0.2]
        question += [] if method == "full" else some(chance, ADAPTER, 0.25)
        question += ["--use-dora"] if method != "full" and chance.random() < 0.15 else []
        if method == "qlora":
            question += some(chance, QUANTIZATION, 0.4) + [w for w in QUANTIZATION_SWITCHES if chance.random() < 0.2]
        yield question
    for _ in range(300):
        question = plan(chance.choice(SMALL + LARGER), chance.choice(CARDS[4:]), chance.choice(METHODS))
        question += ["--gpus", chance.choice(("2", "3", "4", "8", "16", "64"))]
        question += some(chance, {"--parallel": ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-grad-op")}, 0.8)
        question += ["--cpu-offload"] if chance.random() < 0.15 else []
        yield question + some(chance, RECIPE, 0.15)
    for _ in range(150):
        question = [*plan(chance.choice(SMALL + LARGER), chance.choice(CARDS), chance.choice(METHODS[1:]))]
        question += ["--task", "inference", "--adapter", chance.choice(("merged", "dynamic", "none"))]
        inference = {"--batch-size": ("1", "8"), "--prompt-tokens": ("64", "1024"), "--new-tokens": ("0", "100")}
        yield question + some(chance, inference, 0.6) + some(chance, {"--gpus": ("2", "4")}, 0.2)


def screens() -> Iterator[list[str]]:
    """What is not JSON: screens, comparisons, advice, lists, other tools' files."""
    for model in ("8b", "1b", "20b", "8x7b", "gpt2"):
        for card in ("t4", "rtx4090", "h100-sxm"):
            yield ["plan", "--model", model, "--gpu", card]
            yield ["plan", "--model", model, "--gpu", card, "--method", "qlora", "--max", "sequence-length"]
            yield ["plan", "--model", model, "--gpu", card, "--method", "lora", "--format", "csv"]
            yield ["plan", "--model", model, "--gpu", card, "--method", "full", "--format", "markdown"]
            for part in ("time", "activations", "weights", "logits and loss"):
                yield ["plan", "--model", model, "--gpu", card, "--method", "lora", "--explain", part]
        yield ["plan", "--model", model]
        yield ["plan", "--model", model, "--method", "qlora", "--gpus", "auto", "--gpu", "rtx4090"]
        for target in ("transformers", "trl", "axolotl", "llamafactory", "accelerate", "deepspeed"):
            for method in METHODS:
                yield ["recipe", "--model", model, "--method", method, "--for", target]
        yield ["choose", "--model", model, "--tokens", "50M"]
        yield ["choose", "--model", model, "--tokens", "10M", "--method", "qlora", "--format", "csv"]
        yield ["choose", "--model", model, "--tokens", "10M", "--format", "json"]
    yield from (["models"], ["gpus"], ["gpus", "--format", "csv"], ["models", "--format", "markdown"])
    for verb in ("plan", "choose", "recipe", "timeline", "models", "gpus", "run", "validate", "calibrate", "report"):
        yield [verb, "--help"]


def _answer(question: list[str]) -> tuple[int, str, str]:
    from click.testing import CliRunner

    from peftbench.cli import main

    quiet = {"COLUMNS": "80", "NO_COLOR": "1"}
    done = CliRunner().invoke(main, question, prog_name="peftbench", env=quiet)
    if done.exception and not isinstance(done.exception, SystemExit):
        return done.exit_code, done.stdout, f"{done.stderr}{type(done.exception).__name__}: {done.exception}"
    return done.exit_code, done.stdout, done.stderr


def write(path: str) -> None:
    """Write a line for each question, in their order."""
    seen = set()
    with open(path, "w", encoding="utf-8") as file:
        for question in questions():
            if tuple(question) in seen:
                continue
            seen.add(tuple(question))
            code, out, err = _answer(question)
            json.dump({"question": " ".join(question), "exit": code, "out": out, "err": err}, file)
            file.write("\n")
    print(f"{len(seen)} answers in {path}")


def compare(before: str, after: str, numbers: bool) -> int:
    """Print each question whose answer differs, and return how many there are."""
    old, new = (_read(path) for path in (before, after))
    different = [q for q in old.keys() | new.keys() if _seen(old.get(q), numbers) != _seen(new.get(q), numbers)]
    for question in sorted(different)[:40]:
        print(f"differs: peftbench {question}")
        for line in list(_differences(old.get(question), new.get(question), numbers))[:6]:
            print(f"    {line}")
    print(f"{len(different)} of {len(old)} answers differ")
    return len(different)


def _read(path: str) -> dict[str, dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return {line["question"]: line for line in map(json.loads, file)}


def _seen(answer: dict[str, Any] | None, numbers: bool) -> object:
    """What is compared: all of it, or the exit code and what JSON says in numbers, names and flags."""
    if answer is None or not numbers:
        return answer
    if "--format json" not in answer["question"] or answer["exit"]:
        return answer["exit"]
    return answer["exit"], dict(_leaves(json.loads(answer["out"])))


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every plain value of a document with its path; sentences are left out."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{path}[{index}]")
    elif not (isinstance(value, str) and " " in value):
        yield path, value


def _differences(old: dict[str, Any] | None, new: dict[str, Any] | None, numbers: bool) -> Iterator[str]:
    if old is None or new is None:
        yield "only asked after" if old is None else "only asked before"
        return
    if old["exit"] != new["exit"]:
        yield f"exit {old['exit']} → {new['exit']}"
    if not old["exit"] and not new["exit"] and "--format json" in old["question"]:
        was, now = (dict(_leaves(json.loads(answer["out"]))) for answer in (old, new))
        differing = (path for path in sorted(was.keys() | now.keys()) if was.get(path) != now.get(path))
        yield from (f"{path}: {was.get(path)} → {now.get(path)}" for path in differing)
    if not numbers:
        for stream in ("out", "err"):
            lines = zip(old[stream].splitlines(), new[stream].splitlines(), strict=False)
            yield from (f"{a!r} → {b!r}" for a, b in lines if a != b)


if __name__ == "__main__":
    os.environ["PEFTBENCH_CALIBRATION"] = "none"
    if sys.argv[1:2] == ["write"] and len(sys.argv) == 3:
        write(sys.argv[2])
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) in (4, 5):
        sys.exit(min(compare(sys.argv[2], sys.argv[3], "--numbers" in sys.argv), 1))
    else:
        sys.exit(__doc__)
