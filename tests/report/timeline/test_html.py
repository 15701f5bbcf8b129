"""The timeline page: what is drawn, what the mouse is told, and that the file needs nothing else."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_traces import Tape, inference_run, random_traces, training_run

from peftbench.allocator.settings import parse_settings
from peftbench.base.errors import PeftbenchError, install_hint
from peftbench.base.units import GIB, MIB, human_bytes
from peftbench.catalog.gpus import find_gpu, gpu_of_size
from peftbench.catalog.models import find_model
from peftbench.decide.plan.dry_plan import notes_on, plan_by_dry_run
from peftbench.decide.plan.plan import Plan
from peftbench.decide.recipe import LORA
from peftbench.dryrun.session import DryRun
from peftbench.dryrun.trace.timeline import alike, holders
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import workload_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part, Phase
from peftbench.report.format.figure import COLOURS
from peftbench.report.format.html import check_extra
from peftbench.report.format.sheet import Figure
from peftbench.report.timeline.chart import label, phase_bands, step_bands, when
from peftbench.report.timeline.page import figure, peak, timeline_html

MODEL = find_model("llama-3.2-1b")
RECIPE = TrainingSpec(adapter=LORA)
T4 = find_gpu("t4")
TINY_CARD = gpu_of_size(gpu_of_size(GIB).context_bytes + 90 * MIB)


def dry_run_of(trace: Trace, gpu: GpuSpec | None = T4, **options: object) -> DryRun:
    return DryRun(workload_of({}, RECIPE, gpu, **options), trace, gpu)


def plan_of(trace: Trace, gpu: GpuSpec | None = T4) -> Plan:
    dry_run = dry_run_of(trace, gpu)
    return plan_by_dry_run(MODEL, RECIPE, gpu, dry_run)._replace(notes=notes_on(dry_run))


def figure_of(trace: Trace, gpu: GpuSpec | None = T4) -> Figure:
    dry_run = dry_run_of(trace, gpu)
    return figure(dry_run, alike(holders(trace, dry_run.replay)))


def named(made: Figure) -> dict[str, Figure]:
    return {trace["name"]: trace for trace in made["data"]}


def texts(made: Figure) -> list[str]:
    return [re.sub("<.*?>", "", annotation["text"]) for annotation in made["layout"]["annotations"]]


# ── the chart ───────────────────────────────────────────────────────────────────────────────────────────────


@given(random_traces(), st.sampled_from((None, T4, TINY_CARD)))
def test_the_areas_add_up_to_what_is_allocated(trace, gpu):
    made = named(figure_of(trace, gpu))
    lines = made.pop("allocated"), made.pop("reserved")
    for place, event in enumerate(lines[0]["x"]):
        assert all(area["x"][place] == event for area in made.values())
        stacked = sum(area["y"][place] for area in made.values())
        assert stacked == pytest.approx(lines[0]["y"][place], abs=2e-4 * len(made))
        assert stacked <= lines[1]["y"][place] + 2e-4 * len(made)


def test_parts_have_one_colour_each_and_the_steady_ones_are_below():
    assert set(COLOURS) == set(Part) - {Part.SLACK, Part.NCCL, Part.CONTEXT}
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert list(named(figure_of(training_run()))) == [
        "weights", "adapters", "optimizer states", "gradients", "activations", "logits and loss", "allocated",
        "reserved",
    ]  # fmt: skip


def test_plotly_knows_every_key():
    go = pytest.importorskip("plotly.graph_objects")
    for trace, gpu in ((training_run(flush=True), T4), (training_run(), TINY_CARD), (inference_run(), None)):
        go.Figure(figure_of(trace, gpu), skip_invalid=False)


def test_steps_and_phases_are_named_above_the_plot():
    found = texts(figure_of(training_run(steps=2)))
    assert found.count("step 1") == found.count("step 2") == 1
    assert found.count("forward") + found.count("fwd") == 2


def test_a_name_that_has_no_room_is_left_out():
    found = texts(figure_of(training_run(steps=60)))
    assert "step 1" not in found and "forward" not in found and "fwd" not in found
    assert not any(word.startswith("step") for word in found)


@given(random_traces())
def test_bands_lie_side_by_side(trace):
    extent = 1, len(trace.events)
    for bands in (phase_bands(trace.marks, extent), step_bands(trace.marks, extent)):
        assert all(band.start < band.end for band in bands)
        assert all(one.end <= other.start for one, other in pairwise(bands))


def test_decoding_is_one_band():
    trace = inference_run(tokens=30)
    assert [band.names[0] for band in phase_bands(trace.marks, (1, len(trace.events)))] == ["prefill", "decode"]
    assert step_bands(trace.marks, (1, len(trace.events))) == []


def test_the_card_is_a_line_where_it_is_near_and_words_where_it_is_far():
    near, far, without = (figure_of(training_run(), gpu) for gpu in (TINY_CARD, T4, None))
    dashed = [shape for shape in near["layout"]["shapes"] if shape["line"].get("dash") == "dash"]
    assert [shape["y0"] for shape in dashed] == [TINY_CARD.usable_bytes / GIB]
    assert near["layout"]["yaxis"]["range"][1] > dashed[0]["y0"]
    assert f"t4: {human_bytes(T4.usable_bytes)} usable, far above ↑" in texts(far)
    assert not any(shape["line"].get("dash") == "dash" for shape in far["layout"]["shapes"])
    assert not any("usable" in text for text in texts(without))


def test_where_the_card_runs_out_is_marked():
    trace = training_run()
    failure = dry_run_of(trace, TINY_CARD).on_card.failure
    assert trace.blocks[trace.events[failure.position]] is failure.block
    made = figure_of(trace, TINY_CARD)
    assert "out of memory" in texts(made)
    assert failure.position in [shape["x0"] for shape in made["layout"]["shapes"]]
    assert "out of memory" not in texts(figure_of(trace))


def test_an_emptied_cache_is_named_unless_there_are_many():
    assert texts(figure_of(training_run(steps=3, flush=True))).count("empty_cache()") == 3
    many = figure_of(training_run(steps=20, flush=True))
    assert "empty_cache()" not in texts(many)
    assert len([shape for shape in many["layout"]["shapes"] if shape["line"].get("dash") == "dot"]) == 20


# ── what the mouse is told ──────────────────────────────────────────────────────────────────────────────────


def test_the_mouse_is_told_where_and_what():
    made = named(figure_of(training_run()))["allocated"]
    text = next(text for text in made["text"] if text.startswith("event 8 ·"))
    assert "forward and loss of step 1" in text
    assert re.search(r"24\.00 MiB +<span style=\"color:#e15759\">■</span> logits and loss", text)
    assert "62.00 MiB  <b>allocated</b>" in text and "gradients" not in text
    assert text.endswith("last: aten::mm in lm_head")


def test_the_peak_says_who_holds_it():
    made = named(figure_of(training_run()))["allocated"]
    (text,) = (text for text in made["text"] if "the peak" in text)
    assert made["y"][made["text"].index(text)] == max(made["y"])
    assert "24.00 MiB  loading in model.layers.*.mlp" in text
    assert "24.00 MiB  aten::_log_softmax_backward_data in the model itself" in text


def test_a_strange_name_is_no_tag():
    tape = Tape()
    tape.mark(Phase.FORWARD)
    tape.take(MIB, Part.ACTIVATIONS, "<b>", "<script>")
    assert "last: ‹script› in ‹b›<br>" in named(figure_of(tape.trace))["allocated"]["text"][-1]


@pytest.mark.parametrize(
    ("step", "phase", "expected"),
    [(0, Phase.LOAD, "load"), (0, Phase.PREFILL, "prefill"), (2, Phase.DECODE, "decode of token 3"),
     (1, Phase.BACKWARD, "backward pass of step 2")],
)  # fmt: skip
def test_moments_in_words(step, phase, expected):
    assert when(step, phase) == expected


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────────


def page_of(plan: Plan) -> str:
    """The page without plotly's own code."""
    pytest.importorskip("plotly")
    parts = re.split(r"(<script.*?</script>)", timeline_html(plan), flags=re.DOTALL)
    return "".join(part if len(part) < 1_000_000 else "<script></script>" for part in parts)


def test_the_page_says_what_was_run():
    page = page_of(plan_of(training_run()))
    assert "<h1>meta-llama/Llama-3.2-1B · lora · t4</h1>" in page
    for text in ("1.24 B parameters · t4", "sequence 2048", "LoRA r 16 all linear", "Peak 92.00 MiB allocated in the"):
        assert text in page
    assert "backward pass of step 2" in page and "fits: lora on t4, by dry run, needs 0." in page


def test_the_page_says_that_it_does_not_fit_and_where():
    page = page_of(plan_of(training_run(), TINY_CARD))
    assert "does not fit: lora on " in page and " too much" in page
    assert "runs out of memory in step" in page


def test_what_the_run_was_told_besides_the_recipe_is_shown():
    dry_run = replace(
        dry_run_of(training_run(), batch_lengths=(696, 1300), empty_cache_steps=2),
        settings=parse_settings("expandable_segments:True"),
    )
    page = page_of(plan_by_dry_run(MODEL, RECIPE, T4, dry_run))
    assert "batches of 696, 1,300 tokens · cache emptied every 2 steps · expandable_segments=True" in page


def test_the_table_has_every_byte_of_the_peak():
    page = page_of(plan_of(training_run(layers=5)))
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.sub("<.*?>", " ", row).split() for row in body.strip().splitlines()]
    assert rows[0][:5] == ["40.00", "MiB", "34.5", "%", "5"], "the weights of five layers"
    assert rows[-1] == [*peak(plan_of(training_run(layers=5))).split()[1:3], "100.0", "%", "14", "all"]


def test_more_groups_than_the_table_has_rows_are_summed_up():
    tape = Tape()
    tape.mark(Phase.FORWARD)
    for number in range(50):
        tape.take(4 * MIB, Part.ACTIVATIONS, f"module_{chr(97 + number % 26)}{number // 26}")
    assert re.search(r"80\.00 MiB.*>20<.*smaller ones", page_of(plan_of(tape.trace)))


def test_the_page_loads_nothing():
    pytest.importorskip("plotly")
    page = timeline_html(plan_of(training_run()))
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|img|link|iframe)[^>]*\s(src|href)=", page_of(plan_of(training_run())))
    assert "sendDataToCloud" not in page_of(plan_of(training_run()))
    assert page.count("<html") == 1 and page.rstrip().endswith("</html>")


def test_the_page_is_the_same_each_time():
    assert page_of(plan_of(training_run())) == page_of(plan_of(training_run()))


def test_a_strange_model_name_stays_text():
    strange = "</script><script>alert(1)</script>&"
    plan = plan_of(training_run())._replace(model=replace(MODEL, name=strange))
    assert "<script>alert" not in timeline_html(plan)


def test_without_plotly_it_says_what_to_install(monkeypatch):
    for name in ("plotly", "plotly.io"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PeftbenchError, match=re.escape(install_hint(extra="report"))):
        check_extra()


def test_labels_do_not_list_what_is_not_there():
    from peftbench.dryrun.trace.timeline import Point

    text = label(Point(9, 0, Phase.FORWARD, "m", "o", 2 * MIB, {Part.WEIGHTS: MIB}))
    assert "weights" in text and "logits" not in text
