"""The HTML of a ranking: everything is in the file, in both themes, and no text of the user's becomes markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("plotly")

from cli_runner import answer

ASKED = ("choose", "--model", "8b", "--tokens", "50M", "--format", "html")


def test_the_page_loads_nothing_and_has_both_themes() -> None:
    page = answer(*ASKED, "--gpu", "h100-sxm", "--own", "rtx4090")
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert "data-theme=dark" in page and "prefers-color-scheme" in page
    assert "your rtx4090 can do it" in page
    assert page.count("<table>") >= 3


def test_every_choice_is_a_point_of_the_chart() -> None:
    page = answer(*ASKED, "--gpu", "h100-sxm")
    numbers = {int(number) for number in re.findall(r"#(\d+) (?:full|lora|qlora) on ", page)}
    rows = re.search(r"of (\d+)</h2>", page)
    assert rows and numbers == set(range(1, int(rows[1]) + 1))


def test_a_provider_cannot_write_markup(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("gpu,usd_per_hour,provider\nh100,2,<b onload=x>&\n", encoding="utf-8")
    page = answer(*ASKED, "--prices", str(path))
    assert "<b onload" not in page
    assert "&lt;b onload=x&gt;&amp;" in page
