"""Text from outside in every format: no escape, no tag, no link, no broken table; programs get it whole."""

from __future__ import annotations

import csv
import io
import json

import pytest

from peftbench.base.visible import visible
from peftbench.report.format.html import page as html_page
from peftbench.report.format.markdown import render
from peftbench.report.format.sheet import Column, Note, Page, Sheet, Table, listing, tabled
from peftbench.report.format.terminal import labelled, two_sided, wrap
from peftbench.report.format.writers import written

NASTY = "\x1b]0;t\x07\x9b2J\r\u202eabc\u2066\u200b\u2028\x00\udcff\ttail"


def sheet_of(text: str) -> Sheet:
    return listing(text, [Column("a", "a"), Column("b", "b")], [{"a": text, "b": [text, 1]}], text)


@pytest.mark.parametrize("format_", ["terminal", "markdown", "csv", "json", "jsonl", "html"])
def test_every_format_is_printable(format_: str) -> None:
    text = written(sheet_of(NASTY), format_)
    lines = text if format_ != "html" else text.partition("<h1>")[2].partition("<script>")[0]
    assert lines.replace("\n", "").isprintable()
    assert r"\x1b" in text or r"\u001b" in text
    text.encode()


def test_blocks_of_a_screen_are_printable() -> None:
    for block in (labelled("note", NASTY, 60), two_sided(NASTY, NASTY, 80), *wrap(NASTY, 40)):
        assert block.replace("\n", "").isprintable()


def test_programs_get_the_whole_text_and_people_its_ends() -> None:
    long = "x" * 5000 + "end"
    assert json.loads(written(sheet_of(long), "json"))[0]["a"] == long
    assert json.loads(written(sheet_of(NASTY), "jsonl"))["a"] == NASTY
    assert next(csv.DictReader(io.StringIO(written(sheet_of(long), "csv"))))["a"] == long
    for format_ in ("terminal", "markdown"):
        assert len(written(sheet_of(long), format_)) < 2000


def test_markdown_is_inert() -> None:
    text = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) `a` &lt; 1|2\n3"
    table = render(Table(text, ("a",), [(text,)], "l"))
    cell = r"&lt;img src=x onerror=alert(1)&gt; \[x\](javascript:alert(1)) \`a\` &amp;lt; 1\|2 3"
    assert table.splitlines()[0] == f"**{cell}**" and table.splitlines()[-1] == f"| {cell} |"
    assert written(sheet_of(text), "markdown").endswith(f"* {cell}")


def test_a_page_has_no_tag_of_others() -> None:
    text = f"<script>1</script>{NASTY}"
    made = html_page(Page([tabled([Column("a", "a")], [{"a": text}])], [Note(text)], text, [text]))
    assert "<script>1" not in made and visible(NASTY) in made
