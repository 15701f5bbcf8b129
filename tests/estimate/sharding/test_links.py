"""Links between GPUs: what NCCL was measured to reach, slots that are named, and what a step's band makes of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

import peftbench
from peftbench.catalog.gpus import find_gpu, list_gpus
from peftbench.catalog.models import find_model
from peftbench.estimate.sharding.links import (
    HOST_SHARE,
    LINK_SHARE,
    PEER_SHARE,
    UNNAMED_BAND,
    link_band,
    link_rate,
    over_nvlink,
    slot_rate,
)
from peftbench.estimate.time.step import StepTime, step_time
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, TrainingSpec
from peftbench.inputs.recipe.parallelism import LINKS

FILE = Path(peftbench.__file__).parents[1] / "results" / "published" / "links.csv"
MODEL = find_model("llama-3.2-1b")
LORA = TrainingSpec(adapter=AdapterSpec(peft_type="lora", r=16, target_modules=("all-linear",)))
SHARE = {"nvlink": LINK_SHARE, "p2p": PEER_SHARE, "host": HOST_SHARE}


def expected(recipe: TrainingSpec, card: str) -> StepTime:
    found = step_time(MODEL, recipe, find_gpu(card))
    assert found is not None
    return found


def kind_of(link: str) -> str:
    return "nvlink" if link == "nvlink" else "p2p" if link.endswith("p2p") else "host"


def measured_shares() -> dict[str, dict[str, list[float]]]:
    """Measured by stated rate, by kind of link and source."""
    found: dict[str, dict[str, list[float]]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            parallel = ParallelismSpec(gpus=int(row["gpus"]), strategy="ddp", link=row["link"])
            kind = kind_of(row["link"])
            stated = link_rate(parallel, find_gpu(row["gpu"])) / SHARE[kind]
            found.setdefault(kind, {}).setdefault(row["source"], []).append(float(row["gb_s"]) * 1e9 / stated)
    return found


@pytest.mark.parametrize("kind", SHARE)
def test_shares_are_those_that_were_measured(kind: str) -> None:
    sources = measured_shares()[kind].values()
    assert len(sources) >= 3
    assert SHARE[kind] == pytest.approx(median(map(median, sources)), rel=0.05)


def test_a_slot_has_the_rate_of_its_generation_and_lanes() -> None:
    gpu = find_gpu("rtx3090")
    rate = {link: link_rate(ParallelismSpec(gpus=2, strategy="fsdp", link=link), gpu) for link in LINKS}
    assert rate["pcie4-x8"] == pytest.approx(rate["pcie3-x16"]) == pytest.approx(2 * rate["pcie3-x8"])
    assert rate["pcie5-x16"] == pytest.approx(8 * rate["pcie5-x4"] / 2) == pytest.approx(HOST_SHARE * 63.0e9, rel=0.01)
    assert rate["pcie4-x16-p2p"] / rate["pcie4-x16"] == pytest.approx(PEER_SHARE / HOST_SHARE)
    assert rate["pcie"] == rate["pcie4-x16"], "the slot that the card is made for"
    assert link_rate(ParallelismSpec(gpus=2, strategy="fsdp"), gpu) == rate["pcie"]


def test_cards_are_made_for_slots_of_their_own() -> None:
    one = ParallelismSpec()
    assert slot_rate(one, find_gpu("t4")) < slot_rate(one, find_gpu("l4")) < slot_rate(one, find_gpu("rtx5090"))
    assert slot_rate(one, find_gpu("rtx4060ti-16gb")) == pytest.approx(slot_rate(one, find_gpu("rtx4090")) / 2)


def test_a_slow_slot_makes_sharded_steps_slower_and_copies_hardly() -> None:
    """Two RTX 3090 of answer.ai, where sharding took 1.6 times as long as copies did."""
    times = {
        (strategy, link): expected(
            replace(LORA, parallelism=ParallelismSpec(gpus=2, strategy=strategy, link=link)), "rtx3090"
        ).step_s
        for strategy in ("ddp", "fsdp") for link in ("pcie3-x8", "pcie4-x16")
    }  # fmt: skip
    assert times["fsdp", "pcie3-x8"] > 1.4 * times["fsdp", "pcie4-x16"]
    assert times["ddp", "pcie3-x8"] < 1.1 * times["ddp", "pcie4-x16"]


def test_the_band_of_a_step_holds_that_of_its_links() -> None:
    sharded = ParallelismSpec(gpus=2, strategy="fsdp")
    unnamed, named, short = (
        expected(replace(LORA, parallelism=replace(sharded, link=link), sequence_length=length), "rtx4090")
        for link, length in ((None, 512), ("pcie4-x16", 512), (None, 16384))
    )
    alone = expected(replace(LORA, sequence_length=512), "rtx4090")
    slower = [step.high_s / step.step_s for step in (alone, short, named, unnamed)]
    assert slower == sorted(slower) and slower[-1] < UNNAMED_BAND * alone.band
    faster = [step.step_s / step.low_s for step in (alone, short, named, unnamed)]
    assert faster == sorted(faster) and faster[-1] < slower[-1], "without links the card is left"
    assert unnamed.step_s == named.step_s and unnamed.doubt and not named.doubt
    assert link_band(sharded, find_gpu("a100-80gb")) == 1


def test_over_pcie_the_host_serves_offloading_by_the_slot_that_is_named() -> None:
    times = [
        expected(
            replace(LORA, parallelism=ParallelismSpec(gpus=1, strategy="fsdp", cpu_offload=True, link=link)), "rtx4090"
        ).step_s
        for link in (None, "pcie4-x16", "pcie3-x4")
    ]
    assert times[0] == times[1] < times[2]


def test_fewer_amd_cards_use_fewer_of_their_links() -> None:
    gpu = find_gpu("mi300x")
    rates = [link_rate(ParallelismSpec(gpus=n, strategy="fsdp"), gpu) for n in (2, 4, 8)]
    assert rates[1] == pytest.approx(3 * rates[0]) and rates[2] == pytest.approx(7 * rates[0])


def test_a_bridge_joins_two_cards_and_a_ring_over_more_crosses_pcie() -> None:
    pair, four = (ParallelismSpec(gpus=n, strategy="fsdp") for n in (2, 4))
    for card, asked in (("h100-nvl", None), ("rtx3090", "nvlink")):
        two, more = (replace(parallel, link=asked) for parallel in (pair, four))
        gpu = find_gpu(card)
        assert over_nvlink(two, gpu) and not over_nvlink(more, gpu)
        assert link_rate(two, gpu) > link_rate(more, gpu)


def test_a_bridge_of_four_is_not_a_switch() -> None:
    bridged = find_gpu("h200-nvl")
    two, four, eight, apart = (
        ParallelismSpec(gpus=n, nodes=nodes, strategy="fsdp") for n, nodes in ((2, 1), (4, 1), (8, 1), (16, 2))
    )
    assert over_nvlink(two, bridged) and over_nvlink(four, bridged) and not over_nvlink(eight, bridged)
    assert link_rate(eight, bridged) == link_rate(eight, find_gpu("h100-nvl"))
    assert link_rate(apart, bridged) == link_rate(apart, find_gpu("h100-nvl"))


def test_amd_cards_of_data_centres_have_links_and_others_do_not() -> None:
    eight = ParallelismSpec(gpus=8, strategy="fsdp")
    amd = [gpu for gpu in list_gpus() if gpu.product.startswith("AMD")]
    assert amd
    assert all(over_nvlink(eight, gpu) == gpu.product.startswith("AMD Instinct") for gpu in amd)


def test_nodes_talk_over_the_network_of_their_generation() -> None:
    apart = ParallelismSpec(gpus=16, nodes=2, strategy="fsdp")
    rates = [link_rate(apart, find_gpu(card)) for card in ("h100-sxm", "a100-80gb", "l4")]
    assert rates[0] >= 2 * rates[1] >= 20 * rates[2]
    together = ParallelismSpec(gpus=8, strategy="fsdp")
    assert link_rate(apart, find_gpu("l4")) < link_rate(together, find_gpu("l4"))


def test_ddp_hides_most_of_a_short_exchange_and_little_of_a_long_one() -> None:
    full = replace(TrainingSpec(), parallelism=ParallelismSpec(gpus=8, strategy="ddp"))
    waits = []
    for link in ("nvlink", "pcie"):
        step = expected(replace(full, parallelism=replace(full.parallelism, link=link)), "a100-80gb")
        waits.append(step.exchange_wait_s / step.parts.exchange_s)
    assert waits[0] < waits[1] < 1
