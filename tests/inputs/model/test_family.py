"""The rows of families: where they stand, and that only the file that is asked for is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from peftbench.inputs.model.family import SHARED, find_family, known_families

CODE = """
import sys
from peftbench.inputs.model.family import find_family
assert find_family({!r}) is not None
print([name.rpartition(".")[2] for name in sys.modules if ".architectures." in name])
"""


@pytest.mark.parametrize("name", known_families())
def test_every_family_has_a_row_whose_language_model_has_one(name: str) -> None:
    row = find_family(name)
    assert row is not None
    text = find_family(row.text_type) if row.text_type else row
    assert text is not None and not text.text_type


@pytest.mark.parametrize("name", ["", "family", "__init__", "os", "../llama", "LLAMA", "xlnet"])
def test_other_names_have_none(name: str) -> None:
    assert find_family(name) is None


def test_a_file_is_named_by_its_first_family() -> None:
    for file in set(SHARED.values()):
        first = file.rpartition(".")[2]
        assert first in known_families()
        assert SHARED.get(first, first) == file, "a file in a folder is named for its first family too"


@pytest.mark.parametrize("name", ["opt", "mixtral"])
def test_only_the_file_that_is_asked_for_is_loaded(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(name)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == str([SHARED.get(name, name)])
