"""Effects come out of raw figures as they were put in, each with an interval that says so."""

import math
from dataclasses import replace

from comparison_samples import LOSS, SLOWER, latency_record, quality_record

from peftbench.check.runs.effects import latency_ratios, quality_effects


def test_a_loss_is_found_under_blocks_that_differ_far_more():
    effects = {effect.variant: effect for effect in quality_effects(quality_record())}
    nf4 = effects["nf4"]
    assert nf4.ratio.low < 2.718281828**LOSS < nf4.ratio.high and nf4.ratio.low > 1.04
    assert nf4.beyond_floor is True and effects["bf16"].beyond_floor is None
    assert effects["reference"].kl is None


def test_each_is_held_against_its_own_standard():
    against = {effect.variant: effect.against for effect in quality_effects(quality_record())}
    assert against == {
        "reference": "", "bf16": "reference", "nf4": "reference", "reference+adapter": "",
        "nf4-dynamic": "reference+adapter", "nf4-merged": "nf4-dynamic",
    }  # fmt: skip


def test_the_pairs_that_people_ask_about():
    ratios = {(ratio.variant, ratio.against): ratio for ratio in latency_ratios(latency_record())}
    assert list(ratios) == [
        ("dynamic", "merged"), ("dynamic", "base"), ("merged", "base"), ("nf4", "base"), ("nf4-dynamic", "nf4"),
    ]  # fmt: skip
    dynamic = ratios["dynamic", "merged"].decode
    assert abs(dynamic.value / SLOWER - 1) < 0.01 and dynamic.half_width < 0.02 and dynamic.excludes(1.0)
    assert abs(ratios["merged", "base"].decode.value - 1) < 0.01


def test_a_time_below_the_clocks_own_steps_has_no_ratio():
    """Divided by it, any other is infinitely long."""
    record = latency_record()
    first, *others = record.results
    odd = replace(first, decode_cpu_s=(5e-324, *first.decode_cpu_s[1:]))
    ratios = latency_ratios(replace(record, results=(odd, *others)))
    assert all(math.isfinite(ratio.decode.high) for ratio in ratios)
    assert [ratio.decode_cpu is None for ratio in ratios] == [first.variant in ratio[:2] for ratio in ratios]
