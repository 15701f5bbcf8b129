"""Bad input: one message that says what to type next, exit code 2, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from cli_runner import refusal, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import peftbench
from peftbench.base.errors import SpecError
from peftbench.catalog.models import list_models
from peftbench.cli import VERBS, main

PLAN = ("plan", "--model", "8b", "--gpu", "t4")
LLAMA = next(dict(m.config) for m in list_models() if m.config["model_type"] == "llama")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("pln",), "Did you mean plan?"),
        (("plan", "--model", "lama-3.1-8b"), "Did you mean llama-3.1-8b?"),
        (("plan", "--model", ""), "unknown model"),
        (("plan", "--gpu", "t4"), "Missing option '--model'"),
        (("plan", "--model", "8b", "--gpu", "t5"), "Did you mean t4?"),
        (("plan", "--model", "8b", "--gpu-memory", "14"), "Write a number and a unit"),
        (("plan", "--model", "8b", "--gpu-memory", "100MiB"), "leaves no room"),
        (("plan", "--model", "8b", "--gpu-memory", ""), "--gpu-memory 14.5GiB"),
        ((*PLAN, "--method", "qlra"), "Did you mean qlora?"),
        ((*PLAN, "--method", "qfull"), "no gradient"),
        ((*PLAN, "--method", "dora"), "--use-dora"),
        ((*PLAN, "--method", "xlora"), "not modelled"),
        ((*PLAN, "--seq-length", "5"), "--sequence-length"),
        ((*PLAN, "--sequence-length", "many"), "not a whole number"),
        ((*PLAN, "--sequence-length", "0"), "not a whole number from 1"),
        (("plan", "--model", "gpt2", "--gpu", "t4", "--sequence-length", "1025"), "max_position_embeddings"),
        ((*PLAN, "--r", "5000"), "more than the rank"),
        ((*PLAN, "--r", "0"), "from 1"),
        ((*PLAN, "--target-modules", "q_prj"), "Did you mean q_proj?"),
        ((*PLAN, "--target-modules", "q_proj,,"), "empty name"),
        ((*PLAN, "--target-modules", "all_linear"), "Did you mean all-linear?"),
        ((*PLAN, "--method", "oft", "--adapter-option", "oft_block_size=-8"), "PEFT's default is"),
        ((*PLAN, "--optimizer", "adamw"), "unknown optimizer"),
        ((*PLAN, "--blocksize", "48"), "Choose one of 32"),
        ((*PLAN, "--method", "lora", "--blocksize", "64"), "--method qlora"),
        ((*PLAN, "--method", "full", "--r", "8"), "--method lora"),
        ((*PLAN, "--method", "full", "--quant-type", "nf4"), "--method qlora"),
        ((*PLAN, "--quant-type", "int8", "--blocksize", "64"), "no effect with --quant-type int8"),
        ((*PLAN, "--method", "ia3", "--use-dora"), "--method lora"),
        ((*PLAN, "--num-virtual-tokens", "5"), "prompt_tuning"),
        ((*PLAN, "--adapter-option", "oft_block_size"), "NAME=VALUE"),
        ((*PLAN, "--adapter-option", "r=8"), "Use --r"),
        ((*PLAN, "--method", "oft", "--adapter-option", "oft_blocksize=8"), "Did you mean oft_block_size?"),
        ((*PLAN, "--method", "oft", "--adapter-option", "oft_block_size=big"), "must be of type int"),
        ((*PLAN, "--lora-dropout", "1"), "less than 1"),
        ((*PLAN, "--prompt-tokens", "5"), "--task training"),
        ((*PLAN, "--task", "inference", "--loss", "liger"), "--task inference"),
        ((*PLAN, "--task", "inference", "--adapter", "none", "--r", "8"), "no adapter"),
        ((*PLAN, "--task", "inference", "--method", "full", "--adapter", "merged"), "--method lora"),
        (("plan", "--model", "gpt2", "--gpu", "t4", "--method", "prompt-tuning", "--num-virtual-tokens", "1024"),
         "--num-virtual-tokens"),
        ((*PLAN, "--method", "trainable-tokens"), "--adapter-option token_indices=128000,128001"),
        ((*PLAN, "--attention", "flash_attention_2"), "8.0 (Ampere)"),
        ((*PLAN, "--explain", "logit"), "Did you mean logits and loss?"),
        ((*PLAN, "--explain", " "), "--explain activations"),
        ((*PLAN, "--no-gpu"), "exclude each other"),
        (("plan", "--model", "8b", "--no-gpu", "--check"), "--check needs a card"),
        ((*PLAN, "--max", "r"), "sequence-length"),
        ((*PLAN, "--max", "sequence-length", "--check"), "two questions"),
        ((*PLAN, "--explain", "time", "--format", "json"), "terminal"),
        ((*PLAN, "--check", "does_not_fit"), "risky"),
    ],
)
def test_a_mistake_gets_one_helpful_message(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(*arguments)


def numbers() -> list[tuple[str, click.Parameter]]:
    """Every option that takes a number, with its verb."""
    params = ((verb, param) for verb in VERBS for param in verb_of(verb).params)
    others = (click.types.StringParamType, click.types.BoolParamType, click.Choice, click.Path)
    return [(verb, param) for verb, param in params if not isinstance(param.type, others)]


def verb_of(name: str) -> click.Command:
    with click.Context(main) as ctx:
        command = main.get_command(ctx, name)
        assert command is not None
        return command


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1", "9" * 30, "9" * 5000, "", "1e", "0x10"])
def test_no_number_is_nan_infinite_negative_or_absurd(value: str) -> None:
    found = numbers()
    assert {param.opts[0] for _, param in found} >= {"--timeout", "--lora-dropout", "--blocksize", "--r", "--tokens"}
    for verb, param in found:
        if (param.opts[0], value) == ("--blocksize", "-1"):
            continue  # group_size of a GPTQ checkpoint whose rows are one group each
        with pytest.raises(click.BadParameter) as refused:
            param.type.convert(value, param, None)
        assert len(refused.value.message) < 200, (verb, param.opts)


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "1e9", "604801"])
def test_a_time_limit_is_up_to_a_week(value: str) -> None:
    wanted = "is not a number of seconds from 0.001 to 604,800, a week."
    assert wanted in refusal("run", "smoke", f"--timeout={value}")
    assert wanted in refusal(*PLAN, "--dry-run", f"--timeout={value}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, 1e9, True, "5", 10**30, [5]])
def test_so_is_one_of_python(value: object) -> None:
    with pytest.raises(SpecError, match="timeout_s must be"):
        peftbench.measure_training("llama-3.2-1b", device="cpu", timeout_s=value)
    with pytest.raises(SpecError, match="timeout_s must be"):
        peftbench.dry_run("llama-3.2-1b", "t4", timeout_s=value)


@pytest.mark.parametrize(
    "option", ["--gpu", "--gpu-memory", "--method", "--optimizer", "--target-modules", "--explain"]
)
def test_a_long_value_is_not_repeated_in_full(option: str) -> None:
    assert len(refusal("plan", "--model", "8b", option, "z" * 5000)) < 1000


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps(LLAMA)[:200], "this is not JSON"),
        ("weights", "this is not JSON"),
        ([1, 2], "not an object"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "hidden_size"),
        ({**LLAMA, "hidden_size": -1}, "hidden_size"),
        ({**LLAMA, "hidden_size": "big"}, "hidden_size"),
        ({**LLAMA, "num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({**LLAMA, "vocab_size": float("nan")}, "vocab_size"),
        ({**LLAMA, "intermediate_size": 10**12}, "intermediate_size"),
    ],
)
def test_a_broken_config_is_named(tmp_path: Path, content: object, expected: str) -> None:
    assert expected in refusal("plan", "--gpu", "t4", "--model", write(tmp_path / "config.json", content))


def test_a_path_that_is_no_config(tmp_path: Path) -> None:
    binary = tmp_path / "model.json"
    binary.write_bytes(bytes(range(256)))
    assert "not text" in refusal("plan", "--model", str(binary))
    assert "no config.json" in refusal("plan", "--model", str(tmp_path))
    assert "cannot read" in refusal("plan", "--model", str(tmp_path / "none.json"))
    (tmp_path / "sub.json").mkdir()
    assert "no config.json" in refusal("plan", "--model", str(tmp_path / "sub.json"))


_values = (
    st.sampled_from(
        [
            "lora",
            "all-linear",
            "q_proj",
            "nf4",
            "int8",
            "float16",
            "eager",
            "liger",
            "keep",
            "4.48",
            "gpt2",
            "t4",
            "local",
            "8GiB",
            "logits and loss",
            "sequence-length",
            "inference",
            "json",
            "r=4",
            "a=b",
            "oft",
            "ia3",
        ]
    )
    | st.integers(-3, 5000).map(str)
    | st.floats().map(str)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
)
_OPTIONS = [
    "--model",
    "--gpu",
    "--gpu-memory",
    "--no-gpu",
    "--method",
    "--task",
    "--sequence-length",
    "--micro-batch-size",
    "--gradient-accumulation-steps",
    "--no-gradient-checkpointing",
    "--dtype",
    "--no-autocast",
    "--optimizer",
    "--attention",
    "--loss",
    "--fused-kernels",
    "--loop",
    "--zero-grad",
    "--use-cache",
    "--r",
    "--target-modules",
    "--adapter-dtype",
    "--use-dora",
    "--lora-dropout",
    "--num-virtual-tokens",
    "--adapter-option",
    "--quant-type",
    "--blocksize",
    "--no-double-quant",
    "--compute-dtype",
    "--upcast-unquantized",
    "--prompt-tokens",
    "--new-tokens",
    "--batch-size",
    "--adapter",
    "--max",
    "--explain",
    "--check",
    "--format",
]
_FLAGS = {
    o
    for o in _OPTIONS
    if o.startswith("--no-") or o in ("--use-cache", "--use-dora", "--upcast-unquantized", "--check")
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(_OPTIONS), _values), max_size=5))
def test_no_combination_of_options_ends_in_a_traceback(typed: list[tuple[str, str]]) -> None:
    words = [word for name, value in typed for word in ((name,) if name in _FLAGS else (name, value))]
    result = run("plan", "--model", "0.6b", "--gpu", "t4", *words)
    assert result.exit_code in (0, 1, 2), (words, result.exception)
    assert (result.exit_code == 2) == ("Error: " in result.stderr)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied", "/srv/models.json"), "cannot use /srv/models.json: Perm"),
        (OSError(11, "Resource temporarily unavailable"), "Resource temporarily unavailable"),
    ],
)
def test_only_what_stdout_refuses_is_an_answer_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    def fail(*_: object) -> object:
        raise error

    monkeypatch.setattr("peftbench.catalog.models.find_config", fail)
    text = refusal(*PLAN)
    assert expected in text and "cannot write the answer" not in text
