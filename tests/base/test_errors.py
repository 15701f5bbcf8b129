"""Errors say what happened and what to type next; near misses are suggested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import CatalogError, MeasureError, PeftbenchError, SpecError, did_you_mean, install_hint


@pytest.mark.parametrize("kind", [SpecError, CatalogError, MeasureError])
def test_an_error_shows_what_and_then_the_hint(kind):
    error = kind("unknown GPU 't5'.", "Did you mean t4?")
    assert isinstance(error, PeftbenchError)
    assert str(error) == "unknown GPU 't5'.\n  Did you mean t4?"


def test_an_error_without_a_hint_is_one_line():
    assert str(SpecError("r must be at least 1.")) == "r must be at least 1."


@pytest.mark.parametrize(
    ("typed", "known", "said"),
    [
        ("t5", ["t4", "rtx4090", "h100-sxm"], "Did you mean t4?"),
        ("T5", ["T4"], "Did you mean t4?"),
        ("llama-3.1-8", ["llama-3.1-8b", "mistral-7b"], "Did you mean llama-3.1-8b?"),
        ("zebra", ["t4", "l4"], ""),
        ("adamw", ["adamw_torch", "adamw_8bit", "ademamix"], "Did you mean adamw_torch?"),
        ("block", ["block_tokens", "blocks"], "Did you mean blocks?"),
        ("adam", ["ademamix", "adamw_torch"], "Did you mean adamw_torch?"),
        ("", ["t4"], ""),
        ("t4", [], ""),
    ],
)
def test_a_near_miss_is_suggested_and_a_wild_one_is_not(typed, known, said):
    assert did_you_mean(typed, known) == said


@given(st.text(), st.lists(st.text()))
def test_suggestions_never_fail(typed, known):
    assert isinstance(did_you_mean(typed, known), str)


def test_a_hint_names_packages_or_the_extra_of_what_is_installed(monkeypatch):
    assert install_hint("PyYAML") == "Run: pip install PyYAML"
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    assert install_hint(extra="bench") == "Run: pip install 'peftbench[bench]'"


def test_a_hint_of_a_checkout_that_is_not_installed_names_its_folder(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert install_hint(extra="bench").endswith("[bench]'") and "/" in install_hint(extra="bench")
