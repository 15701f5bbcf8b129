"""What the Hub answers to an unknown id, from a server on this machine: the config.json, or one sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from peftbench.base.errors import CatalogError
from peftbench.catalog.models import find_config

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 64}).encode()
ANSWERS = {
    "gated": (403, "GatedRepo"),
    "hidden": (401, "RepoNotFound"),
    "gone": (404, "RepoNotFound"),
    "bare": (404, "EntryNotFound"),
    "broken": (500, ""),
}


class _Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        name = self.path.split("/")[2]
        if name == "old":
            self.send_response(307)
            self.send_header("Location", self.path.replace("/old/", "/new/"))
            self.send_header("Content-Length", "0")
        elif name in ANSWERS:
            status, code = ANSWERS[name]
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
        else:
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(CONFIG)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONFIG)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A Hub on this machine, and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("hub")
def test_the_config_of_an_unknown_id_is_fetched() -> None:
    found = find_config("somebody/fresh")
    assert (found.config["hidden_size"], found.name, found.notes) == (64, "somebody/fresh", ())


@pytest.mark.usefixtures("hub")
def test_a_repository_that_was_renamed_says_its_new_name() -> None:
    found = find_config("somebody/old")
    assert (found.name, found.notes) == ("somebody/new", ("somebody/old is called somebody/new now.",))
    assert found.source == "https://huggingface.co/somebody/new"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("gated", "it is gated.", "Accept its terms on its page and run `hf auth login`, or"),
        ("hidden", "there is no such model, or it is private.", "Check the id, run `hf auth login`"),
        ("gone", "there is no such model, or it is private.", "Check the id, run `hf auth login`"),
        ("bare", "the repository has none.", "Pass the id of its base model, or"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_and_a_remedy(name: str, what: str, hint: str) -> None:
    with pytest.raises(CatalogError) as refused:
        find_config(f"somebody/{name}")
    assert refused.value.what == (f"somebody/{name} is not in the catalogue, and the Hub gave no config.json: {what}")
    assert hint in refused.value.hint


@pytest.mark.usefixtures("hub")
def test_no_network_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CatalogError, match="HF_HUB_OFFLINE keeps it from asking") as refused:
        find_config("somebody/fresh")
    assert "Unset HF_HUB_OFFLINE" in refused.value.hint
