"""Markdown and CSV: frozen columns, cells that cannot break a table or run in a spreadsheet."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from peftbench import find_gpu, find_model, plan
from peftbench.memory import Part
from peftbench.report.format.markdown import render as render_markdown
from peftbench.report.format.sheet import Column, Table, listing
from peftbench.report.format.writers import written
from peftbench.report.plan.rows import COLUMNS
from peftbench.report.plan.sheet import plan_sheet


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_one_row_a_plan_and_a_column_for_every_option() -> None:
    plans = [plan("1b", "t4", method) for method in ("full", "lora", "qlora")]
    table = rows(written(plan_sheet(plans), "csv"))
    assert [row["method"] for row in table] == ["full", "lora", "qlora"]
    assert all(set(p.options) <= set(COLUMNS) for p in plans)
    assert table[0]["r"] == "" and table[1]["r"] == "16"
    assert int(table[2]["device_bytes"]) == plans[2].profile.device_bytes


def test_the_parts_of_a_csv_row_add_up_to_the_device_peak() -> None:
    (row,) = rows(written(plan_sheet([plan("1b", "t4")]), "csv"))
    parts = sum(int(row[f"peak_{part.name.lower()}_bytes"]) for part in Part)
    assert parts == int(row["device_bytes"])


def test_a_spreadsheet_runs_no_cell() -> None:
    model = replace(find_model("1b"), name="=HYPERLINK(1)")
    (row,) = rows(written(plan_sheet([plan(model, find_gpu("t4"))]), "csv"))
    assert row["model"] == "'=HYPERLINK(1)"
    values = ["@x", "-1", -1, "fine", None, True, float("nan"), ["a", "b"]]
    sheet = listing("", [Column("a", "a")], [{"a": value, "b": 0} for value in values], "")
    assert [row["a"] for row in rows(written(sheet, "csv"))] == ["'@x", "'-1", "-1", "fine", "", "true", "", "a b"]


def test_markdown_over_many_cards_shows_the_usual_recipe_once() -> None:
    text = written(plan_sheet([plan("1b", gpu, "qlora") for gpu in ("t4", "l4")]), "markdown")
    assert "bfloat16 autocast" in text and text.count("nf4 block 64") == 1
    assert "* t4: no bfloat16" in text


def test_markdown_cells_cannot_break_the_table() -> None:
    text = render_markdown(Table("a | b", ("x",), [("1|2\n3",)], "l"))
    assert text.splitlines()[0] == r"**a \| b**"
    assert r"1\|2 3" in text.splitlines()[-1]
