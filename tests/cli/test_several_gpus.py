"""`peftbench plan` for several GPUs: what it shows of their number, and one message for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_runner import answer, refusal

import peftbench
from peftbench.base.errors import SpecError

ON_A100 = ("plan", "--model", "8b", "--gpu", "a100-80gb")
LARGE = ("plan", "--model", "70b", "--gpu", "a100-80gb")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*ON_A100, "--gpus", "two"), "or auto"),
        ((*ON_A100, "--gpus", "0"), "from 1 to 4,096"),
        ((*ON_A100, "--gpus", "5000"), "from 1 to 4,096"),
        ((*ON_A100, "--nodes", "2"), "as in --gpus 16"),
        ((*ON_A100, "--gpus", "4", "--nodes", "3"), "4 GPUs cannot be spread evenly over 3 nodes"),
        ((*ON_A100, "--gpus", "auto", "--nodes", "2"), "chooses the nodes"),
        ((*ON_A100, "--gpus", "auto", "--max", "sequence-length"), "--gpus 8"),
        (("plan", "--model", "8b", "--no-gpu", "--gpus", "auto"), "needs a card"),
        ((*ON_A100, "--gpus", "2", "--parallel", "fdsp"), "'fsdp'"),
        ((*ON_A100, "--gpus", "2", "--parallel", "tensor"), "Train with fsdp or zero3"),
        ((*ON_A100, "--gpus", "2", "--parallel", "ddp", "--cpu-offload"), "shards nothing"),
        ((*ON_A100, "--gpus", "2", "--task", "inference", "--cpu-offload"), "every part on its GPU"),
        ((*ON_A100, "--gpus", "3", "--task", "inference"), "attention heads"),
        ((*ON_A100, "--gpus", "2", "--parallel", "zero3", "--dry-run"), "DeepSpeed has no dry run"),
        ((*ON_A100, "--gpus", "2", "--transformers", "4.48", "--dry-run"), "Leave out --transformers for FSDP2"),
        ((*ON_A100, "--gpus", "2048", "--dry-run"), "at most 1,024 GPUs"),
        ((*ON_A100, "--gpus", "2", "--dry-run", "--dry-run-device", "cpu"), "Leave out --dry-run-device"),
        ((*ON_A100, "--gpus", "auto", "--dry-run"), "--gpus 8"),
        ((*ON_A100, "--gpus", "2", "--task", "inference", "--dry-run"), "tensor parallelism has no dry run"),
        ((*LARGE, "--method", "full", "--gpus", "auto", "--parallel", "ddp"), "try --parallel fsdp"),
        ((*ON_A100, "--gpus", "2", "--method", "full", "--optimizer", "adamw_bnb_8bit"), "DTensors"),
        ((*ON_A100, "--gpus", "2", "--method", "qlora", "--quant-type", "int8"), "8-bit"),
        ((*ON_A100, "--link", "pcie4-x8"), "--link has no effect with one GPU"),
        ((*ON_A100, "--gpus", "2", "--link", "pcie4-x7"), "'--link': 'pcie4-x7'"),
        ((*ON_A100, "--sync-each-batch"), "--sync-each-batch has no effect with one GPU"),
        ((*ON_A100, "--gpus", "2", "--parallel", "zero2", "--sync-each-batch"), "no effect with --parallel zero2"),
        ((*ON_A100, "--gpus", "2", "--parallel", "ddp", "--loading", "whole"), "--loading has no effect with"),
    ],
)
def test_a_mistake_gets_one_message(arguments: tuple[str, ...], said: str) -> None:
    message = refusal(*arguments)
    assert said in message
    assert "1 GPUs" not in message


def test_methods_that_need_different_counts_show_theirs() -> None:
    """The smallest counts of three methods differ: each row has its own, and the heading none."""
    screen = answer(*LARGE, "--gpus", "auto")
    plans = json.loads(answer(*LARGE, "--gpus", "auto", "--format", "json"))["plans"]
    counts = {plan["method"]: plan["recipe"]["gpus"] for plan in plans}
    assert len(set(counts.values())) == 3
    assert "each of" not in screen.split("\n", 2)[2]
    for method, gpus in counts.items():
        row = next(line for line in screen.splitlines() if line.split()[:1] == [method])
        assert row.split()[1] == str(gpus)


def test_cards_that_need_different_counts_show_theirs() -> None:
    screen = answer("plan", "--model", "8b", "--method", "full", "--gpus", "auto", "--gpu", "a100-80gb", "--gpu", "l4")
    cells = {line.split()[0]: line.split()[-1] for line in screen.splitlines() if " on " in line and "GiB" not in line}
    assert int(cells["l4"]) > int(cells["a100-80gb"]) >= 1


def test_more_gpus_than_a_machine_has_are_in_several() -> None:
    def nodes(*arguments: str) -> int:
        document = json.loads(answer(*LARGE, "--method", "lora", *arguments, "--format", "json"))
        return int(document["plans"][0]["recipe"]["nodes"])

    counts = {8: 1, 16: 2, 20: 4, 11: 11}
    assert {gpus: nodes("--gpus", str(gpus)) for gpus in counts} == counts
    assert nodes("--gpus", "16", "--nodes", "1") == 1


def test_a_comparison_of_what_does_not_fit_says_how_many_cards_would_do() -> None:
    question = ("plan", "--model", "70b", "--gpu", "rtx4090")
    match = re.search(r"fits on (\d+) × rtx4090 with fsdp: (--gpus \d+ --loading sharded)", answer(*question))
    assert match
    typed = json.loads(answer(*question, *match[2].split(), "--format", "json"))["plans"]
    assert [plan["verdict"]["fit"] for plan in typed if plan["method"] == "qlora"] == ["fits"]


def test_gradients_of_the_backward_pass_are_not_later_than_the_step() -> None:
    """ZeRO-2 has gradients of their own size in each, and its peak is the step."""
    sharded = answer("plan", "--model", "Qwen/Qwen2.5-3B", "--gpu", "a100-80gb", "--method", "full", "--gpus", "4",
                     "--parallel", "zero2", "--sequence-length", "512")  # fmt: skip
    assert "in the optimizer step" in sharded and "later" not in sharded
    assert "later, in the optimizer step" in answer("plan", "--model", "1b", "--gpu", "l4", "--method", "lora")


def test_a_real_run_is_of_one_gpu(tmp_path: Path) -> None:
    """Each way to one says so before anything is started."""
    suite = tmp_path / "two.yaml"
    suite.write_text("about: two\nmodel: llama-3.2-1b\nbase: {gpus: 2}\ncases: {a: {method: lora}}\n", encoding="utf-8")
    assert "a run is of one GPU, without fsdp" in refusal("run", str(suite), "--device", "cpu")
    with pytest.raises(SpecError, match="a run is of one GPU"):
        peftbench.measure_training("llama-3.2-1b", device="cpu", gpus=2)


def test_python_plans_them_and_their_time() -> None:
    plans = [peftbench.plan("70b", "h100-sxm", "full", framework=f, gpus=24) for f in ("transformers", "torchtune")]
    assert {plan.recipe.parallelism.nodes for plan in plans} == {3}
    slow, fast = (plan.time.tokens_per_s for plan in plans if plan.time)
    assert slow < fast
