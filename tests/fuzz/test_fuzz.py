"""A minute of the fuzzer: a fixed number of wrong inputs, none of which may find a fault. `make fuzz` tries an hour."""

from __future__ import annotations

import gc

import pytest
from click.testing import BytesIOCopy
from fuzz.campaign import case_of, numbered, run, told
from fuzz.oracles import Answer, answer_faults, plan_faults, value_faults
from fuzz.trial import try_case
from fuzz.world import no_children

SEED = 20261128
SLICES = {"line": 1000, "file": 1500, "call": 2500}
"""How many of each kind: lines cost most and files find most."""
PLAN = ("plan", "--model", "135m", "--gpu", "t4", "--method", "lora", "--format", "json")


@pytest.mark.parametrize("kind", SLICES)
def test_no_input_finds_a_fault(kind: str) -> None:
    found = run(numbered(SEED, 0, SLICES[kind], kind), SEED)
    assert not found, "\n\n".join(told(each, SEED) for each in found)


def test_a_number_is_the_same_input_each_time() -> None:
    for number in range(60):
        assert case_of(SEED, number).text == case_of(SEED, number).text


def test_no_output_is_kept() -> None:
    cases, before = list(numbered(SEED, 0, 20, "line")), _kept_outputs()
    run(iter(cases), SEED)
    assert _kept_outputs() == before


def _kept_outputs() -> int:
    gc.collect()
    return sum(isinstance(each, BytesIOCopy) for each in gc.get_objects())


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(0, "\x1b]0;PWN\x07", ""), "raw '\\x1b' on stdout"),
        (Answer(0, "", "Traceback (most recent call last)"), "traceback on stderr"),
        (Answer(1, "", ""), "exit code 1"),
        (Answer(2, "half", "Error: no."), "stdout of a refusal is not empty"),
        (Answer(2, "", "no"), "a refusal has no Error: line"),
        (Answer(2, "", "Error: " + "x" * 9000), "a refusal is very long"),
        (Answer(0, '{"a": NaN}', ""), "not strict JSON: NaN is no JSON"),
        (Answer(0, '{"a": 1, "a": 2}', ""), "not strict JSON: a key comes twice"),
        (Answer(0, '{"weights_bytes": -1}', ""), "weights_bytes is negative"),
    ],
)
def test_a_bad_answer_is_seen(answer: Answer, fault: str) -> None:
    assert fault in answer_faults(PLAN, answer)


def test_figures_that_do_not_add_up_are_seen() -> None:
    part = {"part": "weights", "bytes": 5, "low_bytes": 5, "high_bytes": 4, "phases": ["load"]}
    sizes = {
        "allocated_bytes": 9,
        "reserved_bytes": 8,
        "device_bytes": 8,
        "device_low_bytes": 8,
        "device_high_bytes": 8,
        "needed_bytes": 8,
    }
    memory = {**sizes, "components": [part], "peak_phase": "load", "phases": {"load": 7}}
    found = set(plan_faults({"memory": memory, "gpu": None}))
    assert found == {
        "allocated, reserved, device are not in order", "weights is outside its band",
        "the parts do not add up to the peak", "the peak is not that of its phase",
    }  # fmt: skip
    assert list(value_faults({"step_s": float("inf")})) == ["step_s is inf"]


def test_an_exception_is_a_fault_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr("peftbench.catalog.models.find_config", broken)
    with no_children():
        (fault,) = try_case(case_of(SEED, 0)._replace(words=PLAN))
    assert fault.what == "KeyError" and fault.where.endswith("plan_question.py:question_of")
