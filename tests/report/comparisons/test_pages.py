"""Comparisons as tables, rows and sections of the page."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from comparison_samples import latency_record, quality_record
from run_records import environment

from peftbench.base.paired import Interval
from peftbench.cli import main
from peftbench.records.environment import Outcome
from peftbench.records.file import RecordFile
from peftbench.report.comparisons.page import comparison_sections
from peftbench.report.comparisons.rows import COLUMNS, comparison_rows
from peftbench.report.comparisons.table import comparison_tables, interval_text
from peftbench.report.format.writers import written
from peftbench.report.runs.sheet import runs_sheet

HOSTILE = '</script><img src=x onerror=alert(1)>"\'&=cmd|calc'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "compared.jsonl"
    with RecordFile(path, print) as opened:
        for record in (quality_record(), latency_record()):
            opened.append(record)
    return path


def show(*arguments):
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_terminal_shows_effects_with_intervals(file):
    text = show(file)
    assert "nf4-dynamic" in text and "times as long, median of 30 rounds" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "set_adapter" in text


def test_an_interval_has_two_digits():
    assert interval_text(Interval(1.2611, 1.2302, 1.2921)) == "1.261 ±0.031"
    assert interval_text(Interval(0.00069, 0.000679, 0.000701)) == "0.00069 ±0.00001"
    assert interval_text(Interval(31.2, 20.0, 45.0)) == "31 ±12"
    assert interval_text(Interval(4.12e-6, 3.9e-6, 4.3e-6)) == "4.1e-06 ±2e-07"
    assert interval_text(None) == "—"


def test_rows_have_units_and_a_fixed_order(file):
    rows = list(csv.DictReader(io.StringIO(show(file, "--format", "csv"))))
    assert tuple(rows[0]) == COLUMNS
    nf4 = next(row for row in rows if row["variant"] == "nf4" and row["kind"] == "quality")
    assert float(nf4["kl_nats_low"]) < float(nf4["kl_nats"]) < float(nf4["kl_nats_high"])
    pairs = {(row["variant"], row["against"]) for row in rows if row["kind"] == "latency"}
    assert {("dynamic", "merged"), ("merged", "base"), ("base", "")} <= pairs
    assert len(json.loads(show(file, "--format", "json"))["comparisons"]) == len(rows)


def test_what_left_nothing_is_told():
    dead = quality_record(results=(), outcome=Outcome.OOM, message="no more")
    assert comparison_tables(dead) == []
    (row,) = comparison_rows([dead])
    assert row["outcome"] == "out of memory" and row["variant"] is None
    assert any("no more" in section.failure for section in comparison_sections([dead]))


def test_nothing_of_them_is_validated(file):
    result = CliRunner().invoke(main, ["validate", str(file)])
    assert result.exit_code == 2 and "peftbench report" in result.stderr


def test_hostile_names_are_inert():
    pytest.importorskip("plotly")
    record = quality_record(suite=HOSTILE, environment=environment(product=HOSTILE), facts={HOSTILE: HOSTILE})
    record = replace(record, results=tuple(replace(r, notes=(HOSTILE,)) for r in record.results))
    html = written(runs_sheet([], [record]), "html")
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "<img" not in outside and "&lt;img" in outside
    assert html.count("</script>") == len(re.findall(r"<script[ >]", html))
    assert all(not str(value).startswith("=") for row in comparison_rows([record]) for value in row.values())


def test_the_page_has_a_chart_of_each_effect(file, tmp_path):
    pytest.importorskip("plotly")
    show(file, "--format", "html", "-o", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("KL divergence to the standard", "KL where only one layer is in nf4", "Error of the weights in nf4",
                  "Times as long, with 95 % intervals"):  # fmt: skip
        assert words in html
    assert html.count("Plotly.newPlot") == 4
