"""Models are found by every name people use, and bad paths and files are told in one message."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from known_models import BY_FORMULA

from peftbench.base.errors import CatalogError, PeftbenchError, SpecError
from peftbench.base.files import MOST_BYTES
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import (
    UNKNOWN_POSITIONS,
    NamedConfig,
    find_config,
    find_model,
    list_models,
)

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def refusal(text: str) -> PeftbenchError:
    with pytest.raises(PeftbenchError) as caught:
        find_model(text)
    assert caught.value.hint
    return caught.value


def write(path: Path, content: bytes | str | object) -> str:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def test_the_models_of_the_catalogue_have_distinct_names() -> None:
    names = [n.lower() for m in list_models() for n in (m.id, *m.aliases, *m.quantized)]
    assert len(names) == len(set(names))
    assert len({m.id.lower().split("/")[1] for m in list_models()}) == len(list_models())


def test_ids_short_names_aliases_and_quantized_copies_find_the_model() -> None:
    for entry in list_models():
        for name in (entry.id, entry.id.upper(), entry.id.split("/")[1], f" {entry.id} ", *entry.aliases):
            assert find_config(name).name == entry.id, name
        for name in entry.quantized:
            found = find_config(name)
            assert found.name == entry.id and found.notes, name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("8b", "meta-llama/Llama-3.1-8B"),
        ("70B", "meta-llama/Llama-3.1-70B"),
        ("405b", "meta-llama/Llama-3.1-405B"),
        ("0.6b", "Qwen/Qwen3-0.6B"),
        ("65b", "huggyllama/llama-65b"),
        ("8x7b", "mistralai/Mixtral-8x7B-v0.1"),
        ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B"),
        ("7b", "Qwen/Qwen2.5-7B"),
        ("30b", "Qwen/Qwen3-30B-A3B"),
    ],
)
def test_sizes_resolve_to_one_named_model(alias: str, name: str) -> None:
    assert find_model(alias).name == name


def test_unknown_names_get_a_suggestion() -> None:
    error = refusal("mistral-7c")
    assert "unknown model 'mistral-7c'" in error.what
    assert error.hint.startswith("Did you mean mistral-7b?")
    assert f"`peftbench models` lists all {len(list_models())};" in error.hint
    assert isinstance(refusal(""), CatalogError)


def test_a_file_and_its_folder_are_the_same_model(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    file = write(folder / "config.json", TINY)
    assert find_model(file) == find_model(str(folder)) == find_model(str(folder) + os.sep)
    assert find_model(file).name == "my-model"
    assert find_model(file).source == file


def test_other_file_names_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tiny.json", TINY)
    (tmp_path / "models").mkdir()
    write(tmp_path / "models" / "config.json", b"\xef\xbb\xbf" + json.dumps(TINY).encode())
    monkeypatch.chdir(tmp_path)
    assert find_model("tiny.json").name == "tiny"
    assert find_model("./tiny.json").name == "tiny"
    assert find_model("models").name == "models"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not JSON"),
        (json.dumps(TINY).encode()[:40], "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "thousands of digits"),
        (b"\x80\x02PK\xff\xfe", "not text in UTF-8"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
        (b" " * (MOST_BYTES + 1), "far too long"),
    ],
    ids=["empty", "truncated", "deep", "digits", "binary", "list", "null", "huge file"],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, part: str) -> None:
    error = refusal(write(tmp_path / "config.json", content))
    assert part in error.what
    assert "config.json" in error.what


def test_nan_in_a_file_is_refused_by_its_key(tmp_path: Path) -> None:
    error = refusal(write(tmp_path / "config.json", {**TINY, "hidden_size": float("nan")}))
    assert isinstance(error, SpecError)
    assert "hidden_size is nan" in error.what


def test_folders_without_a_model(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(str(tmp_path)).what
    write(tmp_path / "adapter_config.json", {})
    assert "holds a PEFT adapter" in refusal(str(tmp_path)).what


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(str(tmp_path / "missing.json")).what
    assert "null" in refusal("a\0b.json").what
    (tmp_path / "config.json").mkdir()
    assert "is a folder, not a file" in refusal(str(tmp_path)).what


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert "is a pipe, not a file" in refusal(str(tmp_path / "pipe.json")).what


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write(file, TINY)
    file.chmod(0)
    assert "Permission denied" in refusal(str(file)).what


def test_unknown_hub_ids_name_the_library_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = refusal("meta-llama/Llama-3.1-8C")
    assert "huggingface_hub is not installed" in error.what
    assert error.hint.startswith("Did you mean meta-llama/llama-3.1-8b?")
    assert "Run: pip install huggingface_hub." in error.hint


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refusal("nobody/nothing-at-all")
    assert "the Hub gave no config.json" in error.what
    assert "download its config.json and pass the path" in error.hint


def test_a_config_in_the_hub_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--somebody--tiny", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    write(repository / "snapshots" / commit / "config.json", TINY)
    assert find_model("somebody/tiny").hidden_size == TINY["hidden_size"]


def test_a_model_and_a_card_are_shown_by_their_names():
    assert repr(find_model("8b")) == "ModelSpec('meta-llama/Llama-3.1-8B')"
    assert repr(find_gpu("t4")).startswith("GpuSpec('t4', memory_bytes=")


def test_the_positions_of_a_model_are_the_same_by_formula_and_by_name() -> None:
    """Architectures spell them differently, and a multimodal config has them in its text part."""
    named = [find_config(model.id) for model in BY_FORMULA]
    assert [each.other.max_position_embeddings for each in named] == [
        each.spec.max_position_embeddings for each in named
    ]
    unknown = NamedConfig({"model_type": "new", "max_position_embeddings": 77}, "new", "test")
    assert unknown.other.max_position_embeddings == 77
    assert unknown._replace(config={"model_type": "new"}).other.max_position_embeddings == UNKNOWN_POSITIONS
