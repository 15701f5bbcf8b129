"""CONTRIBUTING.md names files that exist and the parts that there are, and the Makefile has what it promises."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:peftbench|tests)/[^`<]*|[A-Z]+\.md|\.ci/run)`", TEXT)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_name_is_in_the_file_that_is_named_after_it() -> None:
    named = re.findall(r"`([A-Z_]+)`\s+(?:in|of)\s+`(peftbench/[^`]+\.py|tests/[^`]+\.py)`", TEXT)
    assert len(named) >= 4
    for name, path in named:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), (name, path)


def test_the_tree_has_every_part() -> None:
    drawn = set(re.findall(r"^[├└]── (\w+)", TEXT, re.MULTILINE))
    parts = {path.stem for path in (ROOT / "peftbench").iterdir() if path.suffix in ("", ".py") and path.stem[0] != "_"}
    assert drawn == parts


def test_the_makefile_has_every_command() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", TEXT)) == targets
