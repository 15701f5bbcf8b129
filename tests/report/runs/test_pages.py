"""Reports of runs: names are inert in every format, columns stay, and a real browser shows the page."""

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from run_samples import HOSTILE, samples

from peftbench.check.runs.comparison import compare
from peftbench.cli import main
from peftbench.records.file import RecordFile
from peftbench.report.format.writers import written
from peftbench.report.runs.rows import COLUMNS, run_row
from peftbench.report.runs.sheet import runs_sheet

COMPARED = compare(samples())
SHEET = runs_sheet(COMPARED)


@pytest.fixture(scope="module")
def html():
    pytest.importorskip("plotly")
    return written(SHEET, "html")


def test_a_row_has_every_column_and_its_unit():
    rows = [run_row(comparison) for comparison in COMPARED]
    assert all(tuple(row) == COLUMNS for row in rows)
    for name in COLUMNS:
        values = {type(row[name]) for row in rows} - {type(None)}
        if values == {int} and "peak" in name:
            assert name.endswith("_bytes")
    assert COLUMNS[:5] == ("suite", "case", "key", "model", "method")  # frozen: new ones come at the end


def test_csv_cells_are_no_formulas():
    """Of hostile names; numbers may be negative."""
    for row in csv.DictReader(io.StringIO(written(SHEET, "csv"))):
        for cell in row.values():
            assert not cell or cell[0] not in "=+-@\t\r" or re.fullmatch(r"-?[0-9.e-]+", cell), cell


def test_json_is_json():
    document = json.loads(written(SHEET, "json"))
    assert len(document["runs"]) == len(COMPARED) and document["runs"][-1]["case"] == HOSTILE


def test_errors_are_of_runs_that_ended_well():
    rows = [run_row(comparison) for comparison in COMPARED]
    assert all((row["allocated_error"] is None) == (row["outcome"] != "ok") for row in rows)
    assert rows[0]["allocated_error"] == pytest.approx(1 / 0.97 - 1, abs=1e-4)


def test_a_table_a_device_and_suite():
    titles = [table.title for table in SHEET.page().tables]
    assert len(titles) == 4 and titles[0].startswith("methods-1b on NVIDIA L4 · driver 570.1")


def test_no_name_is_read_as_html(html):
    outside = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "<img" not in outside and "&lt;img" in outside
    assert html.count("</script>") == len(re.findall(r"<script[ >]", html))
    assert "\u2028" not in re.search(r'id="runs">(.*?)</script>', html, re.DOTALL)[1]


def test_the_page_loads_nothing(html):
    """As a parser of HTML sees it: no attribute names an address or holds a script."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))
    parser.feed(html)
    names = {name for _, attributes in found for name in attributes}
    assert not {name for name in names if name in ("src", "href", "data", "action") or name.startswith("on")}
    assert not {tag for tag, _ in found} & {"img", "link", "iframe", "object", "embed", "base", "form"}
    assert "default-src 'none'" in html


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with RecordFile(tmp_path / "runs" / "a.jsonl", print) as file:
        for record in samples():
            file.append(record)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments):
    return CliRunner().invoke(main, ["report", "runs", *arguments])


@pytest.mark.parametrize("format_", ["terminal", "csv", "markdown", "json"])
def test_every_format_goes_to_stdout(folder, format_):
    result = report("--format", format_)
    assert result.exit_code == 0, result.output
    assert "lora-no-checkpointing" in result.stdout
    if format_ == "terminal":
        lines = [line for line in result.stdout.splitlines() if " on " not in line]
        assert max(map(len, lines)) <= 80


def test_the_page_goes_to_a_file(folder):
    pytest.importorskip("plotly")
    result = report("--format", "html")
    assert "report.html: open it" in result.stdout
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("-o", "nowhere/x.csv"), "cannot write"), (("--format", "pdf"), "pdf")],
)
def test_mistakes_are_told(folder, arguments, says):
    result = report(*arguments)
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output


def test_published_figures_are_no_runs(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"schema_version": 1, "metric": "reserved_max"}\n')
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 2 and "holds no record of a run" in result.output


# ── a browser ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tab(html, tmp_path_factory):
    """The page in Chromium, which may not reach any network."""
    api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("there is no Chromium here")
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html, encoding="utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True).new_page()
        tab.problems = []
        tab.on("console", lambda message: message.type == "error" and tab.problems.append(message.text))
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.on("dialog", lambda dialog: (tab.problems.append("a dialog"), dialog.dismiss()))
        tab.goto(file.as_uri())
        tab.wait_for_selector("#over-time .plotly")
        yield tab
        browser.close()


def test_it_opens_without_a_complaint(tab):
    assert tab.problems == []
    assert tab.locator("svg.main-svg").count() >= 10


def test_the_theme_can_be_changed(tab):
    def paper():
        return tab.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    tab.click("#theme")
    dark = paper()
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 25, 31)")
    tab.click("#theme")
    assert paper() == light


def test_a_point_tells_its_run(tab):
    """Hovers the first bar of the parts of the first suite."""
    bar = tab.locator("#parts-0 .barlayer .point path").first
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_selector("#parts-0 .hoverlayer text")
    text = tab.locator("#parts-0 .hoverlayer").text_content()
    assert "full sequence_length=512" in text and "GiB" in text


def test_another_run_can_be_chosen(tab):
    before = tab.evaluate("document.getElementById('over-time').data[0].y[50]")
    tab.select_option("#run", index=2)
    assert tab.evaluate("document.getElementById('over-time').data[0].y[50]") != before
    assert tab.problems == []


def test_a_narrow_window_has_no_overflow(tab):
    tab.set_viewport_size({"width": 400, "height": 800})

    def widest():
        return tab.evaluate("document.documentElement.scrollWidth")

    for _ in range(100):  # the charts are drawn anew after a while; the page's policy forbids wait_for_function
        if widest() <= 400:
            break
        tab.wait_for_timeout(100)
    assert widest() <= 400
