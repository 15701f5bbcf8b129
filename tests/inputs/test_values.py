"""Whatever is given in Python, of whichever type, is used or refused by a PeftbenchError; nothing hangs."""

from dataclasses import fields, replace

import pytest

import peftbench
from peftbench.base.errors import PeftbenchError
from peftbench.decide.from_options import OPTIONS
from peftbench.inputs.recipe.parallelism import ParallelismSpec

BAD = (
    None, True, 5, -1, 10**9, 10**400, 10**5000, 1.5, float("nan"), float("inf"), "", "nan", "\ud800", b"x", [],
    ["q_proj"], [[]],
    {}, {"a": 1}, {1: 2}, object(), type, set(), "a" * 100_000,
)  # fmt: skip
SPECS = (
    peftbench.TrainingSpec, peftbench.AdapterSpec, peftbench.QuantizationSpec, peftbench.InferenceSpec, ParallelismSpec,
)  # fmt: skip
METHODS = ("lora", "qlora", "prompt_tuning", "oft", "boft")
CARD = peftbench.find_gpu("t4")
MODEL = peftbench.find_model("0.5b")


def tried(make):
    """What was made of every bad value; those that are refused are left out."""
    found = []
    for value in BAD:
        try:
            found.append(make(value))
        except PeftbenchError as error:
            assert 10 < len(str(error)) < 2500
    return found


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    for method in METHODS:
        for plan in tried(lambda value, m=method: peftbench.plan(MODEL, CARD, m, **{name: value})):
            assert 0 < plan.profile.allocated_bytes < 10**18


def test_what_is_planned():
    assert not tried(lambda value: peftbench.plan(value, CARD))
    assert [plan.gpu for plan in tried(lambda value: peftbench.plan(MODEL, value))] == [None]
    assert not tried(lambda value: peftbench.plan(MODEL, CARD, value))
    assert not tried(lambda value: peftbench.plan(MODEL, CARD, framework=value))
    assert not tried(lambda value: peftbench.plan(MODEL, None, framework=value))
    assert not tried(lambda value: peftbench.plan(MODEL, CARD, no_such=value))


@pytest.mark.parametrize("spec", SPECS)
def test_specs(spec):
    for field in fields(spec):
        for made in tried(lambda value, name=field.name: spec(**{name: value})):
            assert hash(made) is not None and "\ud800" not in str(made.dtype if hasattr(made, "dtype") else "")


def test_cards_and_models():
    for field in fields(CARD):
        for made in tried(lambda value, name=field.name: replace(CARD, **{name: value})):
            assert peftbench.plan(MODEL, made).profile.device_bytes > 0
    for field in fields(MODEL):
        for made in tried(lambda value, name=field.name: replace(MODEL, **{name: value})):
            tried(lambda _, made=made: peftbench.plan(made, CARD))


def test_dry_runs_and_runs_are_refused_before_they_start():
    for name in ("method", "sequence_length", "batch_lengths", "empty_cache_steps", "dtype"):
        bad = [value for value in BAD if value is not None and not (name in _FREE and value in _FREE[name])]
        for value in bad:
            with pytest.raises(PeftbenchError):
                peftbench.dry_run("0.5b", "t4", **{name: value})
    for name in ("method", "device", "steps", "sequence_length"):
        for value in BAD:
            if value is not None and not (name in _FREE and value in _FREE[name]):
                with pytest.raises(PeftbenchError):
                    peftbench.measure_training(**{"model": "0.5b", "device": "cpu", name: value})


_FREE = {
    "sequence_length": (5,), "batch_lengths": ([],), "empty_cache_steps": (5,),
    "steps": (5,),
}  # fmt: skip
"""Values that can be."""


def test_names_and_enums_are_taken_as_they_are_written():
    spec = peftbench.AdapterSpec(target_modules=["q_proj", "v_proj"], dtype="bfloat16", options={"b": 1, "a": 2})
    assert spec == peftbench.AdapterSpec(
        target_modules=("q_proj", "v_proj"), dtype=peftbench.DType.BFLOAT16, options=(("a", 2), ("b", 1))
    )


def test_estimates_and_plans_take_specs_of_their_task():
    training, request = peftbench.TrainingSpec(), peftbench.InferenceSpec()
    for ask, good, other in (
        (peftbench.estimate_training, training, request),
        (peftbench.estimate_inference, request, training),
        (peftbench.make_plan, training, request),
    ):
        assert not tried(lambda value, ask=ask, good=good: ask(value, good, CARD))
        assert not tried(lambda value, ask=ask: ask(MODEL, value, CARD))
        assert len(tried(lambda value, ask=ask, good=good: ask(MODEL, good, value))) == 1  # None is no card
        with pytest.raises(PeftbenchError, match="must be of class"):
            ask(MODEL, other, CARD)
