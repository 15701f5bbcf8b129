"""The files of the catalogue agree with each other, and a size or a quantized copy says which model it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks.catalogue import Entry, name_sizes, names_of, tidy_names
from cli_runner import run

from peftbench.catalog.checkpoints import entry as catalogue
from peftbench.catalog.checkpoints.entry import CHECKPOINTS, NAMES, find_entry, list_models
from peftbench.catalog.checkpoints.quantized import copy_of
from peftbench.catalog.models import find_config


def test_the_names_lead_to_the_lines_of_their_checkpoints() -> None:
    lines = Path(CHECKPOINTS).read_text(encoding="utf-8").splitlines(keepends=True)
    assert Path(NAMES).read_text(encoding="utf-8") == "".join(names_of(lines))
    assert all(find_entry(model.id) == model for model in list_models())


def test_one_name_reads_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "list_models", lambda: pytest.fail("all of the catalogue is read"))
    assert find_config("8b").name == "meta-llama/Llama-3.1-8B"


@pytest.mark.parametrize("name", ["", "\n8b", "8b\t0", "b", "llama/8b", "-8b", "8b\n", "0", "meta-llama"])
def test_what_only_looks_like_a_name_is_none(name: str) -> None:
    assert find_entry(name) is None


def test_every_checkpoint_says_how_it_is_known() -> None:
    for model in list_models():
        assert model.evidence and model.transformers_class and model.num_parameters > 0
        assert model.published in (None, model.num_parameters) or model.difference, model.id
        assert all(copy_of(name) for name in model.quantized)


def test_a_size_says_which_model_it_stands_for() -> None:
    (note,) = find_config("8B").notes
    assert note == "8B stands for meta-llama/Llama-3.1-8B; `peftbench models 8B` lists others of that size."
    assert find_config("mistral-7b").notes == ()
    asked = ("--model", "0.6b", "--gpu", "t4", "--method", "lora")
    assert "0.6b stands for Qwen/Qwen3-0.6B" in run("plan", *asked).stdout
    assert "0.6b stands for Qwen/Qwen3-0.6B" in run("choose", "--model", "0.6b", "--tokens", "1M").stdout


def test_words_keep_the_models_that_have_all_of_them() -> None:
    listed = run("models", "qwen", "8b", "--format", "csv").stdout
    assert "Qwen/Qwen3-8B," in listed and "Llama-3.1-8B" not in listed and "Qwen3-0.8B" not in listed
    assert "Qwen/Qwen3-4B" not in listed
    refused = run("models", "no-such-model")
    assert refused.exit_code and "no model is called 'no-such-model'." in refused.stderr


def test_without_words_a_family_has_one_row_on_the_screen_and_each_model_one_for_programs() -> None:
    screen, table = run("models").stdout, run("models", "--format", "csv").stdout
    types = {str(model.config["model_type"]) for model in list_models()}
    assert [line.split()[0] for line in screen.splitlines() if line.split()[:1] == ["gpt_neox"]] == ["gpt_neox"]
    assert len(screen.split("note ")[0].strip().splitlines()) == len(types) + 1
    assert len(table.splitlines()) == len(list_models()) + 1


def test_words_keep_the_cards_that_have_all_of_them() -> None:
    listed = run("gpus", "h100", "PCIE").stdout
    assert "h100-pcie" in listed and "h100-sxm" not in listed
    refused = run("gpus", "no-such-card")
    assert refused.exit_code and "no card is called 'no-such-card'." in refused.stderr


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        ("unsloth/gemma-2-9b-bnb-4bit", "bitsandbytes", "is google/gemma-2-9b stored as bitsandbytes NF4."),
        ("Qwen2.5-7B-Instruct-AWQ", "awq", "is Qwen/Qwen2.5-7B stored as AWQ int4."),
        ("Qwen/Qwen3-8B-FP8", "fp8", "is Qwen/Qwen3-8B stored as float8."),
        ("unsloth/Qwen3-8B-GGUF", "gguf", "is Qwen/Qwen3-8B stored as GGUF."),
    ],
)
def test_a_quantized_copy_is_its_base_with_the_scheme_that_it_holds(name: str, method: str, words: str) -> None:
    found = find_config(name)
    assert found.config["quantization_config"]["quant_method"] == method  # type: ignore[index]
    assert found.notes == (f"{name} {words}",)


def test_a_name_that_says_nothing_of_a_scheme_is_no_quantized_copy() -> None:
    assert copy_of("meta-llama/Llama-3.1-8B") is None and copy_of("google/gemma-3-270m-it-qat") is None
    assert copy_of("x/Y-8B-unsloth-bnb-4bit") != copy_of("x/Y-8B-bnb-4bit")


def _entry(name: str, downloads: int, *aliases: str) -> Entry:
    return {"id": name, "kind": "causal-lm", "downloads": downloads, "aliases": list(aliases), "quantized": []}


def test_a_size_moves_where_another_model_has_three_times_the_downloads() -> None:
    entries = {each["id"]: each for each in (_entry("a/Old-8B", 10, "8b", "old"), _entry("b/New-8B-A1B", 31))}
    name_sizes(entries)
    assert (entries["a/Old-8B"]["aliases"], entries["b/New-8B-A1B"]["aliases"]) == (["old"], ["8b"])
    entries = {each["id"]: each for each in (_entry("a/Old-8B", 10, "8b"), _entry("b/New-8B", 30))}
    name_sizes(entries)
    assert entries["a/Old-8B"]["aliases"] == ["8b"]


def test_the_sizes_are_those_of_the_rule() -> None:
    entries = {m.id: {**m._asdict(), "aliases": list(m.aliases)} for m in list_models()}
    name_sizes(entries)
    for model in list_models():
        assert {a for a in model.aliases if re.fullmatch(r"[\d.x]+[bm]", a)} <= set(entries[model.id]["aliases"])


def test_an_id_is_no_alias_and_a_copy_belongs_to_one() -> None:
    first, second = _entry("a/X", 1, "a/Y", "a/Z"), _entry("a/Y", 1, "a/z")
    first["quantized"] = second["quantized"] = ["c/Y-AWQ", "c/Y-plain"]
    tidy_names({"a/X": first, "a/Y": second})
    assert (first["aliases"], second["aliases"]) == (["a/Z"], [])
    assert (first["quantized"], second["quantized"]) == (["c/Y-AWQ"], [])
