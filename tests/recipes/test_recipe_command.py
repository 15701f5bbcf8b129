"""`peftbench recipe`: what it writes, what it refuses, and that the script really trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import answer, refusal, run

QLORA = ("recipe", "--model", "8b", "--method", "qlora")


@pytest.mark.parametrize("tool", ["transformers", "axolotl", "llamafactory"])
def test_the_file_plans_as_the_recipe(tool: str, tmp_path: Path) -> None:
    path = tmp_path / ("train.py" if tool == "transformers" else "run.yaml")
    options = ("--micro-batch-size", "3", "--padded", "--lora-alpha", "7")
    assert answer(*QLORA, *options, "--for", tool, "-o", str(path)) == ""
    asked = ("--gpu", "rtx4090", "--format", "json")
    (read,) = json.loads(answer("plan", "--from", str(path), *asked))["plans"]
    (typed,) = json.loads(answer("plan", *QLORA[1:], *options, *asked))["plans"]
    assert read["recipe"] == typed["recipe"]
    assert read["memory"] == typed["memory"]


def test_what_a_tool_does_otherwise_is_told() -> None:
    result = run(*QLORA, "--for", "trl")
    assert result.exit_code == 0
    assert "--loss liger" in result.stderr and "--adapter-dtype bfloat16" in result.stderr
    assert "# differs from what was asked: --loss liger" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*QLORA, "--for", "trl", "--loss", "transformers"), "cannot say --loss transformers"),
        ((*QLORA, "--loop", "plain"), "cannot say --loop plain"),
        (("recipe", "--model", "8b", "--method", "ia3", "--for", "axolotl"), "LoRA adapters only"),
        ((*QLORA, "--for", "deepspeed"), "is for ZeRO"),
        ((*QLORA, "-o", "/nowhere/at/all.py"), "cannot write"),
        ((*QLORA, "--method", "lora"), "one method"),
        (("recipe",), "--model"),
        (("recipe", "--model", "9x"), "unknown model"),
    ],
)
def test_what_cannot_be_written_is_refused(arguments: tuple[str, ...], said: str) -> None:
    assert said in refusal(*arguments).replace("\n", " ")


def test_one_tools_file_becomes_anothers(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yml", tmp_path / "b.yaml"
    answer(*QLORA, "--for", "axolotl", "--sequence-length", "1024", "-o", str(first))
    answer("recipe", "--from", str(first), "--for", "llamafactory", "-o", str(second))
    assert "cutoff_len: 1024" in second.read_text()


def test_a_card_without_bfloat16_gets_float16() -> None:
    result = run(*QLORA, "--for", "axolotl", "--gpu", "t4")
    assert (result.exit_code, result.stderr) == (0, "t4 has no bfloat16: priced in float16.\n")
    assert "fp16: true" in result.stdout


def test_a_script_reads_quantized_weights_on_the_host_where_they_are_loaded_in_parts(tmp_path: Path) -> None:
    """The others place them themselves."""
    sharded = ("recipe", "--model", "1b", "--method", "qlora", "--gpus", "2", "--parallel", "fsdp")
    assert '{"": int(os.environ' in answer(*sharded)
    path = tmp_path / "train.py"
    answer(*sharded, "--loading", "sharded", "-o", str(path))
    assert '"device_map": {"": "cpu"}' in path.read_text() and "--loading sharded" in path.read_text()
    assert "places quantized weights itself" in refusal(*sharded, "--loading", "sharded", "--for", "axolotl")


def test_zero3_is_written_for_the_launchers() -> None:
    sharded = ("recipe", "--model", "70b", "--method", "lora", "--gpus", "8", "--parallel", "zero3")
    deepspeed = json.loads(answer(*sharded, "--for", "deepspeed"))
    assert deepspeed["zero_optimization"]["stage"] == 3
    assert deepspeed["zero_optimization"]["reduce_bucket_size"] == "auto"
    accelerate = run(*sharded, "--for", "accelerate")
    assert "num_processes: 8" in accelerate.stdout and "zero_stage: 3" in accelerate.stdout
    assert accelerate.stderr == "accelerate does otherwise: --reduce-bucket-size 500000000\n"


@pytest.mark.parametrize("tool", ["transformers", "trl", "axolotl", "llamafactory"])
@pytest.mark.parametrize(
    "parallel",
    [("ddp",), ("zero2", "--cpu-offload"), ("zero3", "--nodes", "2"), ("fsdp-grad-op", "--link", "pcie4-x8")],
    ids=lambda p: p[0],
)
def test_the_line_in_the_file_plans_the_same_gpus(parallel: tuple[str, ...], tool: str, tmp_path: Path) -> None:
    """On several GPUs the file alone does not say how many: its own line does, as options of plan."""
    path, asked = tmp_path / ("run.py" if tool == "transformers" else "run.yaml"), ("--gpu", "h100", "--format", "json")
    recipe = ("--model", "8b", "--method", "full", "--gpus", "8", "--parallel", *parallel)
    assert run("recipe", *recipe, "--for", tool, "-o", str(path)).exit_code == 0
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("# Plan it: "))
    _, _, options = line.partition(" --from ")
    (read,) = json.loads(answer("plan", "--from", str(path), *options.split()[1:], *asked))["plans"]
    differs = {line.split()[6] for line in path.read_text().splitlines() if line.startswith("# differs")}
    if not differs:
        (typed,) = json.loads(answer("plan", *recipe, *asked))["plans"]
        assert read["memory"] == typed["memory"]
    shared = ("gpus", "nodes", "parallel", "cpu_offload", "link")
    assert [read["recipe"][name] for name in shared] == [
        8, 2 if "--nodes" in parallel else 1, parallel[0], "--cpu-offload" in parallel,
        "pcie4-x8" if "--link" in parallel else None,
    ]  # fmt: skip
    assert differs <= {"--loss", "--no-autocast"}


def test_the_command_starts_every_gpu() -> None:
    on_four = (*QLORA, "--gpus", "4", "--parallel", "ddp", "--for")
    assert "accelerate launch --num_processes 4 train.py" in answer(*on_four, "transformers")
    assert "trl.yaml --num_processes 4" in run(*on_four, "trl").stdout
    assert "axolotl.yml -- --num_processes 4" in answer(*on_four, "axolotl")
    assert "NPROC_PER_NODE=2 NNODES=2" in answer(*on_four, "llamafactory", "--nodes", "2")


@pytest.mark.parametrize("tool", ["transformers", "trl"])
def test_codes_that_are_split_are_stored_as_floats(tool: str) -> None:
    assert "bnb_4bit_quant_storage" in run(*QLORA, "--gpus", "4", "--parallel", "fsdp", "--for", tool).stdout
    assert "bnb_4bit_quant_storage" not in run(*QLORA, "--gpus", "4", "--parallel", "ddp", "--for", tool).stdout


def tiny_model(folder: Path) -> None:
    """A Llama of two layers with random weights, and a tokenizer of single words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(("<unk>", "<eos>", *(f"w{n}" for n in range(62))))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>").save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    "options",
    [
        ("--method", "full"),
        ("--method", "lora", "--padded", "--micro-batch-size", "2"),
        ("--method", "qlora", "--upcast-norms", "--adapter-dtype", "bfloat16"),
        ("--method", "ia3", "--dtype", "float32", "--no-autocast"),
        ("--method", "prompt-tuning", "--num-virtual-tokens", "4"),
        ("--method", "lora", "--optimizer", "adamw_8bit", "--gradient-accumulation-steps", "2"),
    ],
    ids=" ".join,
)
def test_the_script_trains(options: tuple[str, ...], tmp_path: Path) -> None:
    model, script, data, out = (tmp_path / name for name in ("model", "train.py", "data.jsonl", "out"))
    tiny_model(model)
    data.write_text("".join(json.dumps({"text": " ".join(f"w{(n * k) % 62}" for n in range(40))}) + "\n"
                            for k in range(1, 9)))  # fmt: skip
    answer("recipe", "--model", str(model), *options, "--sequence-length", "32", "-o", str(script))
    done = subprocess.run(
        [sys.executable, str(script), str(data), "--output-dir", str(out), "--max-steps", "2"],
        capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train_loss" in done.stdout
    name = "model.safetensors" if options[1] == "full" else "adapter_config.json"
    assert (out / name).exists()
    (plan,) = json.loads(answer("plan", "--from", str(script), "--no-gpu", "--format", "json"))["plans"]
    if options[1] != "full":
        assert f"trainable params: {plan['trainable_parameters']:,} " in done.stdout
