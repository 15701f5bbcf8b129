"""The card catalogue: every figure has a source, sizes are in order, every spelling finds its card."""

from __future__ import annotations

import csv
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import CatalogError, PeftbenchError, SpecError
from peftbench.base.units import GIB, MIB
from peftbench.catalog.gpus import GPUS_CSV, find_gpu, gpu_of_size, list_gpus, with_speed
from peftbench.inputs.card.cuda_context import context_band, context_bytes
from peftbench.inputs.card.gpu import BEFORE_AMPERE, MODERN, GpuSpec, Kernels
from peftbench.inputs.recipe.parallelism import LINKS

with open(GPUS_CSV, encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
BY_NAME = {row["name"]: row for row in ROWS}

SOURCE_OF = {
    "memory_mib_torch": "memory_source",
    "smi_total_mib": "smi_source",
    "nominal_gb": "nominal_source",
    "compute_capability": "compute_capability_source",
    "memory_bandwidth_gb_s": "memory_bandwidth_source",
    "multiprocessors": "multiprocessors_source",
    "dense_tensor_tflops": "dense_tensor_source",
    "mamf_bf16_tflops": "mamf_source",
    "best_matmul_share": "best_matmul_source",
    "tdp_w": "tdp_source",
    "link_gb_s": "link_source",
    "network_gb_s": "network_source",
    "pcie": "pcie_source",
    "l2_mb": "l2_source",
    "float32_tflops": "float32_source",
    "steps_published": "steps_source",
    "release_date": "release_date_source",
}
RANGES = {
    "memory_mib_torch": (3800, 300 * 1024),
    "nominal_gb": (4, 300),
    "memory_bandwidth_gb_s": (60, 10_000),
    "multiprocessors": (8, 200),
    "dense_tensor_tflops": (10, 3000),
    "mamf_bf16_tflops": (20, 2500),
    "best_matmul_share": (0.3, 1.2),
    "tdp_w": (10, 1500),
    "link_gb_s": (50, 1000),
    "link_cards": (2, 72),
    "network_gb_s": (10, 100),
    "l2_mb": (2, 300),
    "float32_tflops": (1, 200),
}

each_card = pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])


@each_card
def test_every_figure_has_a_source_and_every_source_a_figure(row):
    for figure, source in SOURCE_OF.items():
        assert bool(row[figure]) == bool(row[source]), figure


@each_card
def test_figures_are_plausible(row):
    for figure, (low, high) in RANGES.items():
        assert not row[figure] or low <= float(row[figure]) <= high, figure
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d)?", row["release_date"])
    assert not row["pcie"] or row["pcie"] in LINKS
    assert not row["float32_tflops"] or float(row["float32_tflops"]) <= 0.51 * float(row["dense_tensor_tflops"] or 1e9)
    assert not row["link_cards"] or row["link_gb_s"]
    assert not row["network_gb_s"] or row["link_gb_s"]
    assert not (row["mamf_bf16_tflops"] and row["best_matmul_share"])
    assert not row["mamf_bf16_tflops"] or float(row["mamf_bf16_tflops"]) < float(row["dense_tensor_tflops"])


@each_card
def test_what_torch_sees_is_less_than_the_driver_shows_and_that_less_than_the_box_says(row):
    torch, box = int(row["memory_mib_torch"]), int(row["nominal_gb"]) * 1024
    assert 0.9 * box < torch < box
    if row["smi_total_mib"]:
        assert torch < int(row["smi_total_mib"]) <= box


@each_card
def test_bfloat16_agrees_with_the_compute_capability(row):
    assert (row["bfloat16"] == "yes") == find_gpu(row["name"]).has_bfloat16
    assert bool(row["compute_capability"]) == (not row["product"].startswith(("AMD", "Intel")))


@each_card
def test_a_derived_memory_follows_its_stated_rule(row):
    assert (row["memory_derived"] == "yes") == row["memory_source"].startswith("derived")
    if row["memory_derived"] == "yes":
        assert int(row["memory_mib_torch"]) == derived_mib(row)


def derived_mib(row):
    """The rule that the cell `memory_source` states in words, computed."""
    if "ROCm" in row["memory_source"]:
        return int(int(row["nominal_gb"]) * 1024 * 23.98 / 24)
    stated_gap, card = re.search(r"− (\d+) MiB \(gap of (.+)\)", row["memory_source"]).groups()
    gap = int(BY_NAME[card]["smi_total_mib"]) - int(BY_NAME[card]["memory_mib_torch"])
    assert gap == int(stated_gap) and BY_NAME[card]["memory_derived"] == "no"
    if not row["smi_total_mib"]:
        like = BY_NAME[re.search(r"smi/nominal of (\S+)", row["memory_source"])[1]]
        return int(int(row["nominal_gb"]) * int(like["smi_total_mib"]) / int(like["nominal_gb"]) - gap)
    return int(row["smi_total_mib"]) - gap


@pytest.mark.parametrize("card", ["rtx5090", "rtx6000-ada", "a100-80gb"])
def test_the_gap_used_to_derive_is_the_widest_measured_in_its_class(card):
    hbm = {"rtx5090": (0, 2000), "rtx6000-ada": (0, 2000), "a100-80gb": (1500, 10_000)}[card]
    geforce = "GeForce" in BY_NAME[card]["product"]
    measured = [
        int(row["smi_total_mib"]) - int(row["memory_mib_torch"])
        for row in ROWS
        if row["smi_total_mib"] and row["memory_derived"] == "no" and ("GeForce" in row["product"]) == geforce
        and hbm[0] <= float(row["memory_bandwidth_gb_s"]) < hbm[1]
    ]  # fmt: skip
    assert max(measured) == int(BY_NAME[card]["smi_total_mib"]) - int(BY_NAME[card]["memory_mib_torch"])


def test_no_two_cards_share_a_spelling():
    owners = {}
    for row in ROWS:
        for spelling in (row["name"], row["product"], *row["aliases"].split(";")):
            key = re.sub("[^a-z0-9]", "", spelling.lower())
            assert key and owners.setdefault(key, row["name"]) == row["name"], spelling


@each_card
def test_every_spelling_finds_its_card(row):
    for spelling in (row["name"], row["product"], *row["aliases"].split(";")):
        assert find_gpu(spelling.upper()).name == row["name"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("T4", "t4"),
        ("Tesla T4", "t4"),
        ("4090", "rtx4090"),
        ("rtx 4090", "rtx4090"),
        ("GeForce RTX 4090", "rtx4090"),
        ("a100", "a100-40gb"),
        ("A100_80GB", "a100-80gb"),
        ("h100", "h100-sxm"),
        ("h100-80gb", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("L40S", "l40s"),
    ],
)
def test_people_type_cards_in_many_ways(typed, name):
    assert find_gpu(typed).name == name


def test_t4_carries_what_its_row_says():
    t4 = find_gpu("t4")
    assert t4.memory_bytes == 14913 * MIB
    assert (t4.nominal_gb, t4.compute_capability, t4.multiprocessors) == (16, (7, 5), 40)
    assert t4.memory_bandwidth == 320 * 10**9
    assert t4.tensor_flops == 65 * 10**12
    assert t4.usable_bytes == t4.memory_bytes - context_bytes(40, (7, 5))
    assert not t4.has_bfloat16


@pytest.mark.parametrize("maker", ["AMD", "Intel"])
def test_cards_of_others_say_what_is_not_verified(maker):
    cards = [gpu for gpu in list_gpus() if gpu.product.startswith(maker)]
    assert cards and all("not verified" in gpu.notes for gpu in cards)


def test_an_unknown_card_is_told_what_to_type_next():
    with pytest.raises(CatalogError) as error:
        find_gpu("t5")
    assert "Did you mean t4?" in error.value.hint
    assert f"lists all {len(ROWS)}" in error.value.hint and "--gpu-memory 16GiB" in error.value.hint


@given(st.text())
def test_any_text_finds_a_card_or_is_refused_politely(text):
    try:
        assert find_gpu(text) in list_gpus()
    except PeftbenchError as error:
        assert error.hint


def test_a_card_of_a_given_size_is_modern_and_says_that_it_was_given():
    gpu = gpu_of_size(16 * GIB)
    assert (gpu.name, gpu.memory_source, gpu.memory_bytes) == ("given", "given", 16 * GIB)
    assert gpu.has_bfloat16 and gpu.compute_capability is None


def test_a_card_smaller_than_the_cuda_context_is_refused():
    with pytest.raises(SpecError, match="no room"):
        gpu_of_size(200 * MIB)


@each_card
def test_the_context_lies_in_its_band(row):
    gpu = find_gpu(row["name"])
    low, high = context_band(gpu.multiprocessors, gpu.compute_capability)
    assert low <= gpu.context_bytes == context_bytes(gpu.multiprocessors, gpu.compute_capability) < high


SINCE = {
    "bfloat16": (8, 0), "flash": (8, 0), "flash_attention_2": (8, 0), "grouped_mm": (8, 0), "bitsandbytes": (6, 0),
    "llm_int8": (7, 5), "fp8": (8, 9), "mxfp4": (7, 5),
}  # fmt: skip
"""Compute capabilities from which torch, flash-attn, bitsandbytes and transformers 5.23 have kernels."""


@each_card
def test_kernels_are_those_of_the_row_and_of_its_compute_capability(row):
    gpu = find_gpu(row["name"])
    assert gpu.kernels == Kernels(*(row[kind] == "yes" for kind in Kernels._fields)) and row["software_source"]
    assert all(row[kind] in ("yes", "no") for kind in Kernels._fields)
    if gpu.compute_capability:
        assert gpu.kernels == Kernels(**{kind: gpu.compute_capability >= since for kind, since in SINCE.items()})


def test_a_card_that_is_not_listed_has_the_kernels_of_its_compute_capability():
    def card(capability):
        return GpuSpec(
            name="local", product="x", memory_bytes=8 * GIB, memory_source="x", compute_capability=capability
        )

    assert with_speed(card((6, 1))).kernels == find_gpu("gtx1080ti").kernels != BEFORE_AMPERE
    assert with_speed(card((7, 5))).kernels == card((7, 5)).kernels == BEFORE_AMPERE
    assert with_speed(card((99, 0))).kernels == card(None).kernels == MODERN


def test_new_names_find_their_cards():
    assert find_gpu("rtx3050").nominal_gb == 8 and find_gpu("1080 ti").compute_capability == (6, 1)
    assert find_gpu("DGX Spark").nominal_gb == find_gpu("gb10").nominal_gb == 128
