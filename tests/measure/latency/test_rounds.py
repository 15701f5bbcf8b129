"""Rounds: shuffled by a seed and interleaved, they find what is slower, and find equal things equal."""

import gc
import math

import pytest
import torch
from runs.latency_cases import BASE, DYNAMIC, MERGED, NF4, latency_case, variant

from peftbench.base.errors import MeasureError
from peftbench.measure.latency.compare import request_of
from peftbench.measure.latency.pairs import (
    FALSE_ALARMS,
    MARGIN,
    TWIN,
    NullCheck,
    decode,
    narrow_enough,
    null_checks,
    prefill,
    ratio,
    refuse_bias,
    same_base,
)
from peftbench.measure.latency.rounds import WARM_UP, Timing, orders, run_rounds
from peftbench.measure.latency.variants import build_variants

CASE = latency_case(BASE, DYNAMIC, MERGED)


@pytest.fixture
def models():
    """Base, dynamic, merged by name, and the twin, which is the base."""
    found = {each.variant.name: each.model for each in build_variants(CASE)}
    return {**found, TWIN: found["base"]}


def run(models, rounds=20, most_rounds=20, seed=0, enough=lambda timings: False, told=lambda share: None):
    return run_rounds(models, request_of(CASE), seed, rounds, most_rounds, enough, told)


def burden(model):
    """Work beside every pass, about as much as the tiny model does itself."""
    matrix = torch.ones(384, 384)

    def work(module, args, output):
        for _ in range(4):
            matrix @ matrix

    model.register_forward_hook(work)


# ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_round_has_every_variant_once_in_an_order_of_the_seed():
    def first(seed):
        drawn = orders("abcd", seed)
        return [next(drawn) for _ in range(200)]

    assert all(sorted(order) == list("abcd") for order in first(0))
    assert first(0) == first(0) != first(1)
    for name in "abcd":  # no place belongs to anyone: 50 of 200 are expected, six standard deviations are 37
        assert all(13 < sum(order[place] == name for order in first(0)) < 87 for place in range(4))


def test_the_models_run_in_that_order(models):
    del models[TWIN]
    seen = []
    for name, model in models.items():
        model.register_forward_pre_hook(lambda module, args, name=name: seen.append(name))
    run(models, rounds=6, most_rounds=6)
    shuffled, passes = orders(tuple(models), 0), 1 + CASE.new_tokens
    expected = [name for _ in range(WARM_UP + 6) for name in next(shuffled)]
    assert seen == [name for name in expected for _ in range(passes)]


def test_figures_of_one_place_are_of_one_round(models):
    told = []
    timings = run(models, rounds=5, most_rounds=7, told=told.append)
    assert {name: len(found) for name, found in timings.items()} == dict.fromkeys(models, 7)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) == 7
    assert all(value > 0 for found in timings.values() for timing in found for value in timing)


def test_a_prefill_is_of_the_prompt_and_decoding_of_a_token_each(models):
    lengths = []
    models["base"].register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    run({"base": models["base"]}, rounds=1, most_rounds=1)
    assert lengths[: 1 + CASE.new_tokens] == [CASE.prompt_tokens, *[1] * CASE.new_tokens]


def test_rounds_stop_when_there_is_enough_and_not_before(models):
    asked = []

    def enough(timings):
        asked.append(len(timings["base"]))
        return len(asked) == 2

    timings = run({"base": models["base"]}, rounds=6, most_rounds=30, enough=enough)
    assert asked == [6, 11] and len(timings["base"]) == 11


def test_the_garbage_collector_rests_while_a_model_runs_and_works_afterwards(models):
    seen = []
    models["base"].register_forward_hook(lambda *_: seen.append(gc.isenabled()))
    run({"base": models["base"]}, rounds=1, most_rounds=1)
    timed = (1 + CASE.new_tokens) * WARM_UP
    assert not any(seen[timed:]) and gc.isenabled() and gc.get_freeze_count() == 0


# ── what is slower, and what is not ─────────────────────────────────────────────────────────────────────────────────


def test_a_variant_with_more_work_is_found_slower(models):
    burden(models["merged"])
    timings = run(models)
    for phase in (prefill, decode):
        found = ratio(timings, "merged", "base", phase)
        assert found.low > 1 and found.excludes(1.0)


def test_a_twin_with_more_work_fails_the_null_check(models):
    twin = next(iter(build_variants(latency_case(BASE)))).model
    burden(twin)
    checks = null_checks(CASE.variants, run({**models, TWIN: twin}))
    assert all(check.biased for check in checks if TWIN in check.name)
    with pytest.raises(MeasureError, match=r"biased here: \(twin\) / base in prefill"):
        refuse_bias(checks)


def test_a_merged_model_with_more_work_fails_the_null_check(models):
    burden(models["merged"])
    checks = null_checks(CASE.variants, run(models))
    assert {check.name for check in checks if check.biased} >= {"merged / base in prefill", "merged / base in decode"}


def constant(*values):
    return [Timing(value, value, value, value) for value in values]


def test_a_null_check_fails_in_no_more_than_its_share_of_runs():
    """Exactly: without bias all 2^n ways in which n rounds may fall to one side or the other are equally likely."""
    n, base = 16, constant(*[1.0] * 16)
    failing = [
        above
        for above in range(n + 1)
        if any(
            check.biased
            for check in null_checks([BASE], {TWIN: constant(*[2.0] * above, *[0.5] * (n - above)), "base": base})
        )
    ]
    assert 0 < sum(math.comb(n, above) for above in failing) / 2**n <= FALSE_ALARMS
    assert failing == [0, 1, 2, 14, 15, 16]


def test_with_too_few_rounds_a_null_check_says_nothing():
    timings = {TWIN: constant(*[9.0] * 5), "base": constant(*[1.0] * 5)}
    (check, _) = null_checks([BASE], timings)
    assert (check.value, check.low, check.high) == (9.0, 0.0, math.inf) and not check.biased


@pytest.mark.parametrize(("low", "biased"), [(1 + MARGIN / 2, False), (1 + 2 * MARGIN, True)])
def test_a_percent_is_no_bias(low, biased):
    assert NullCheck("a / b", 1.1, low, 1.2).biased is biased
    assert NullCheck("a / b", 0.9, 0.8, 2 - low).biased is biased


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pairs_have_the_same_base_and_the_same_adapter():
    other = variant("nf4", quantization=NF4)
    merged = variant("nf4-merged", "merged", quantization=NF4)
    several = variant("several", "dynamic", adapters=4)
    all_of_them = [BASE, DYNAMIC, several, MERGED, other, merged]
    assert list(same_base(all_of_them, "dynamic", "merged")) == [(DYNAMIC, MERGED), (several, MERGED)]
    assert list(same_base(all_of_them, "merged", "base")) == [(MERGED, BASE), (merged, other)]


def test_rounds_go_on_until_every_decode_ratio_is_narrow():
    steady = constant(*[1.0] * 20)
    wild = constant(*[1.0, 3.0] * 10)
    narrow = narrow_enough(CASE.variants, 0.08)
    assert narrow({"dynamic": steady, "merged": steady, "base": wild})
    assert not narrow({"dynamic": wild, "merged": steady, "base": steady})
    without_merged = narrow_enough([BASE, DYNAMIC], 0.08)
    assert without_merged({"dynamic": steady, "base": steady})
    assert not without_merged({"dynamic": steady, "base": wild})
    assert narrow_enough([BASE], 0.08)({"base": wild})


def test_time_of_a_card_is_told_by_its_events_only():
    timing = Timing(2.0, 1.0, None, None)
    assert (prefill(timing), decode(timing)) == (2.0, 1.0)
