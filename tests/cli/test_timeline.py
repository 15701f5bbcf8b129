"""`peftbench timeline` as a user runs it; most runs are answered by a trace that was put into the cache."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import click
import pytest
from cli_runner import answer, refusal, run
from small_traces import training_run

from peftbench.base.errors import install_hint
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_config
from peftbench.cli import main
from peftbench.decide.card import settle
from peftbench.decide.from_options import training_recipes
from peftbench.dryrun.cache import TraceCache
from peftbench.dryrun.workload import workload_of

ASKED = ("timeline", "--model", "llama-3.2-1b", "--gpu", "t4", "--method", "lora")
needs_plotly = pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="needs plotly")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a cache in which the trace of ASKED is."""
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    named, card = find_config("llama-3.2-1b"), find_gpu("t4")
    (recipe,) = training_recipes(("lora",), {})
    settled, _ = settle(named.spec, recipe, card)
    workload = workload_of(named.config, settled, card)
    TraceCache(tmp_path / "cache", print).write(workload, training_run())
    return tmp_path / "work"


# ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────


@needs_plotly
def test_it_writes_a_page_and_says_where(folder):
    assert answer(*ASKED) == (
        "timeline.html: peak 92.00 MiB allocated in the backward pass of step 2, 112.00 MiB reserved\n"
    )
    page = (folder / "timeline.html").read_text(encoding="utf-8")
    assert "t4 has no bfloat16: priced in float16." in page
    assert "float16 autocast" in page
    assert [path.name for path in folder.iterdir()] == ["timeline.html"]


@needs_plotly
def test_the_page_goes_where_it_is_told(folder):
    answer(*ASKED, "-o", "other.html")
    result = run(*ASKED, "--output", "-")
    assert result.stdout == (folder / "other.html").read_text(encoding="utf-8")
    assert result.stderr.startswith("the page: peak 92.00 MiB")


@needs_plotly
def test_a_snapshot_is_written_beside_it(folder):
    result = run(*ASKED, "--snapshot", "memory.pickle")
    assert result.exit_code == 0
    assert "memory.pickle: drop it on https://pytorch.org/memory_viz" in result.stderr
    found = pickle.loads((folder / "memory.pickle").read_bytes())
    assert found["device_traces"][0][0]["action"] == "segment_alloc"


def test_a_snapshot_that_cannot_be_written_leaves_stdout_empty(folder):
    assert "cannot write /dev/full" in refusal(*ASKED, "-o", "-", "--snapshot", "/dev/full")


@needs_plotly
def test_the_allocator_can_be_set(folder):
    assert "112.00 MiB reserved" not in answer(*ASKED, "--alloc-conf", "expandable_segments:True")
    assert "expandable_segments=True" in (folder / "timeline.html").read_text(encoding="utf-8")


@needs_plotly
def test_a_plan_command_can_be_retyped(folder):
    assert answer(*ASKED, "--dry-run") == answer(*ASKED)


@needs_plotly
def test_another_tools_file_can_be_drawn(folder, tmp_path):
    file = tmp_path / "lora.yml"
    assert run("recipe", *ASKED[1:], "--for", "axolotl", "-o", str(file)).exit_code == 0
    assert answer("timeline", "--from", str(file), "--gpu", "t4") == answer(*ASKED)


# ── the options ─────────────────────────────────────────────────────────────────────────────────────────────


def options(verb: str) -> dict[str, click.Parameter]:
    command = main.get_command(click.Context(main), verb)
    assert command is not None
    return {flag: param for param in command.params for flag in (*param.opts, *param.secondary_opts)}


def test_it_takes_the_options_of_plan_but_those_of_its_answer():
    answers = {"--max", "--explain", "--framework", "--check", "--format"}
    tasks = {"--task-type", "--num-labels", "--target-length", "--audio-seconds"}
    assert set(options("timeline")) == set(options("plan")) - answers - tasks | {"--output", "-o", "--snapshot"}


def test_the_help_has_its_own_sections():
    text = answer("timeline", "--help")
    assert "\nOutput:\n" in text and "\nAnswer:\n" not in text
    assert "--alloc-conf" in text and "--extrapolate" not in text and "--max " not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "--extrapolate" in answer("plan", "--help")


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────


@needs_plotly
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("timeline", "--model", "8b", "--gpu", "t4"), "--method qlora"),
        (("timeline", "--gpu", "t4", "--method", "lora"), "Missing option '--model'"),
        ((*ASKED, "--gpus", "auto"), "--gpus 8, instead of auto"),
        ((*ASKED, "--gpus", "2", "--parallel", "zero2"), "DeepSpeed has no dry run"),
        ((*ASKED, "--method", "qlora"), "one method"),
        ((*ASKED, "--gpu", "l4"), "one card"),
        ((*ASKED, "--gpu-memory", "8GiB"), "one card"),
        ((*ASKED, "--no-gpu"), "exclude each other"),
        (("timeline", "--model", "8b", "--method", "lora"), "--gpu t4, or --no-gpu"),
        (("timeline", "--model", "lama-3.1-8b", "--gpu", "t4", "--method", "lora"), "Did you mean llama-3.1-8b?"),
        ((*ASKED, "--extrapolate"), "Leave out --extrapolate"),
        ((*ASKED, "--max", "sequence-length"), "No such option"),
        (("timeline", "--model", "gpt2", "--gpu", "t4", "--method", "lora", "--sequence-length", "1025"),
         "max_position_embeddings"),
        ((*ASKED, "--alloc-conf", "expandable_segment:True"), "Did you mean expandable_segments"),
        ((*ASKED, "--batch-lengths", "many"), "whole numbers with commas between"),
        ((*ASKED, "-o", "nowhere/page.html"), "there is no folder nowhere"),
        ((*ASKED, "-o", "."), "--output needs a file"),
        ((*ASKED, "-o", ""), "--output needs a file"),
        ((*ASKED, "--snapshot", ""), "--snapshot memory.pickle"),
        ((*ASKED, "--snapshot", "-"), "a snapshot needs a file"),
        ((*ASKED, "--snapshot", "nowhere/memory.pickle"), "another file with --snapshot"),
        ((*ASKED, "-o", "page", "--snapshot", "./page"), "are one file"),
    ],
)
def test_a_mistake_gets_one_helpful_message(folder, arguments, expected):
    assert expected in refusal(*arguments)
    assert not list(folder.iterdir())


@needs_plotly
def test_a_file_that_cannot_be_written_is_one_message(folder):
    message = refusal(*ASKED, "-o", "x" * 300)
    assert "cannot write xxx" in message and "another file with --output" in message


def test_without_plotly_it_says_what_to_install(folder, monkeypatch):
    for name in ("plotly", "plotly.io"):
        monkeypatch.setitem(sys.modules, name, None)
    assert install_hint(extra="report") in refusal(*ASKED)


# ── a real run ──────────────────────────────────────────────────────────────────────────────────────────────

TINY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@needs_plotly
@pytest.mark.oracle
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the real libraries")
def test_a_small_model_from_its_config_to_the_page_and_the_snapshot(tmp_path, monkeypatch):
    viz = pytest.importorskip("torch.cuda._memory_viz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    result = run("timeline", "--model", "./config.json", "--gpu", "l4", "--method", "lora", "--sequence-length", "256",
                 "--snapshot", "memory.pickle")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("timeline.html: peak ")
    page = (tmp_path / "timeline.html").read_text(encoding="utf-8")
    assert "model.layers.*.mlp.gate_proj" in page and "lora_A" in page
    found = pickle.loads((tmp_path / "memory.pickle").read_bytes())
    assert "total_reserved" in viz.segsum(found)
    operations = {entry["frames"][0]["name"] for entry in found["device_traces"][0] if entry["action"] == "alloc"}
    assert {"aten::mm", "aten::_to_copy"} <= operations
