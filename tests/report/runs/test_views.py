"""What reports make of odd records: nothing known, two of one name, names that would rewrite a screen."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from run_records import measurement
from run_samples import L4, run, samples

from peftbench.check.runs.comparison import compare
from peftbench.records.environment import Outcome
from peftbench.records.run import Sample
from peftbench.report.format.writers import written
from peftbench.report.runs.charts import parts_figure, scatter_figure, step_figure, time_figures
from peftbench.report.runs.rows import COLUMNS
from peftbench.report.runs.sheet import BARS, CHARTED, CURVES, runs_sheet

FIRST = samples()[0]
NOTHING = replace(
    FIRST, case=replace(FIRST.case, config='{"model_type": "strange"}'),
    measurement=measurement(outcome=Outcome.ERROR, message="no such model", phases=(), samples=(), step_s=()),
)  # fmt: skip


def test_the_columns_are_frozen():
    assert ",".join(COLUMNS) == (
        "suite,case,key,model,method,device,product,memory_bytes,memory_limit_bytes,task,sequence_length,"
        "micro_batch_size,gradient_accumulation_steps,gradient_checkpointing,use_reentrant,dtype,autocast,optimizer,"
        "attention,loss,fused_kernels,loop,use_cache,zero_grad,transformers,prompt_tokens,new_tokens,batch_size,"
        "peft_type,r,target_modules,adapter_dtype,use_dora,use_rslora,lora_dropout,num_virtual_tokens,adapter_options,"
        "quant_type,blocksize,double_quant,compute_dtype,upcast_unquantized,upcast_norms,padded,steps,warmup_steps,"
        "learning_rate,seed,outcome,message,last_phase,allocated_peak_bytes,reserved_peak_bytes,device_peak_bytes,"
        "process_peak_bytes,baseline_bytes,load_allocated_bytes,forward_allocated_bytes,backward_allocated_bytes,"
        "step_allocated_bytes,prefill_allocated_bytes,decode_allocated_bytes,alloc_retries,num_parameters,"
        "trainable_parameters,step_median_s,step_min_s,step_max_s,prefill_median_s,tokens_per_s,first_loss,last_loss,"
        "energy_j,duration_s,predicted_allocated_bytes,predicted_reserved_bytes,predicted_device_bytes,"
        "predicted_device_low_bytes,predicted_device_high_bytes,predicted_peak_phase,verdict,headroom_bytes,"
        "allocated_error,reserved_error,device_error,prediction_note,compute_capability,multiprocessors,driver,"
        "threads,platform,alloc_conf,started_at,python_version,torch_version,transformers_version,peft_version,"
        "bitsandbytes_version,accelerate_version,peftbench_version,lora_alpha,sync_each_batch,bits,device_map"
    ), "new columns come at the end"


def test_a_run_of_which_nothing_is_known_is_shown():
    pytest.importorskip("plotly")
    page = written(runs_sheet(compare([NOTHING])), "html")
    assert "error: no such model" in page and "not predicted: " in page
    assert step_figure(compare([NOTHING])) is None


def test_two_of_one_name_have_a_row_each():
    twice = compare([FIRST, FIRST])
    assert {tuple(trace["y"]) for trace in parts_figure(twice)["data"]} == {(0, 1)}
    assert len(time_figures(compare([FIRST, FIRST, FIRST]))) == 3


def test_charts_have_room_for_some_runs_and_tables_for_all():
    """Of 130 runs of one suite, and of 25 more suites."""
    others = [replace(FIRST, suite=f"suite-{number}") for number in range(25)]
    sections = runs_sheet(compare([FIRST] * 130 + others)).whole().sections
    rows = [len(section.table.rows) for section in sections if section.table]
    assert rows == [130] + [1] * 25
    bars = next(section for section in sections if section.id == "parts-0")
    assert len(bars.figure["data"][0]["x"]) == BARS and bars.text == "The first 100 of 130 runs."
    curves = next(section for section in sections if section.id == "over-time")
    assert len(curves.choices) == CURVES and curves.text == "The first 100 of 155 runs."
    assert sum(section.id.startswith("parts-") for section in sections) == CHARTED
    assert "Of 26 devices and suites the first 20 have charts." in [section.text for section in sections]


def test_runs_of_one_suite_are_together_wherever_they_are():
    found = samples()
    tables = runs_sheet(compare([found[0], found[9], found[1]])).page().tables
    assert [len(table.rows) for table in tables] == [2, 1]
    assert tables[0].headings[4] == "device" and tables[1].headings[4] == "process"


def test_a_title_has_every_day_and_version():
    later = replace(FIRST, environment=replace(L4, started_at="2026-11-03T00:00:00Z", versions={"torch": "2.14.1"}))
    title = runs_sheet(compare([later, FIRST])).page().tables[0].title
    assert title.endswith("torch 2.14.1, 2.13.0 · 2026-11-01 to 2026-11-03")


def test_a_terminal_is_told_no_control_characters():
    stopped = replace(FIRST.measurement, outcome=Outcome.ERROR, message="bad\x1b[31m\nvalue")
    strange = replace(FIRST, case=replace(FIRST.case, id="a\x1b[2J\nb"), measurement=stopped)
    (row,) = runs_sheet(compare([strange])).page().tables[0].rows
    assert row[0] == r"a\x1b[2J b" and row[-1] == r"error: bad\x1b[31m value"
    assert row[1].startswith("≥"), "what it had reached"


def test_what_is_no_number_is_unknown():
    strange = replace(FIRST.measurement, losses=(math.nan,), samples=(Sample(math.nan, 1, 1), Sample(1.0, 1, 1)))
    compared = compare([replace(FIRST, measurement=strange)])
    assert json.loads(written(runs_sheet(compared), "json"))["runs"][0]["first_loss"] is None
    (figure,) = time_figures(compared).values()
    assert figure["data"][0]["x"] == [1.0]


def test_the_card_is_a_line_where_it_is_near_and_words_where_it_is_far():
    near = compare([run("full", L4, method="full")])
    far = compare([run("small", L4, model="smollm2-135m", sequence_length=128)])
    (line,) = parts_figure(near)["layout"]["shapes"]
    assert line["x0"] == pytest.approx(L4.memory_bytes / (1 << 30))
    assert parts_figure(far)["layout"]["shapes"] == []
    assert "far to the right" in parts_figure(far)["layout"]["annotations"][-1]["text"]


def test_axes_have_round_sizes():
    axis = scatter_figure(compare(samples()))["layout"]["xaxis"]
    assert {"1 GiB", "2 GiB", "4 GiB"} <= set(axis["ticktext"]) and len(axis["ticktext"]) <= 8


def test_plotly_knows_every_key():
    go = pytest.importorskip("plotly.graph_objects")
    compared = compare(samples())
    charts = (parts_figure(compared), scatter_figure(compared), step_figure(compared), *time_figures(compared).values())
    for made in charts:
        go.Figure(made, skip_invalid=False)
