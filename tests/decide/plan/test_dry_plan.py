"""Where a dry run was replayed on the card, how that ended is the verdict."""

from __future__ import annotations

import pytest
from small_traces import FACTS

from peftbench.base.units import MIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.dry_plan import plan_by_dry_run, with_dry_run
from peftbench.decide.plan.plan import make_plan
from peftbench.decide.verdict import Fit, judge
from peftbench.dryrun.session import DryRun
from peftbench.dryrun.trace.trace import Block, Mark, Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import Part, Phase

T4 = find_gpu("t4")
RECIPE = TrainingSpec()


def dry_run_of(*sizes_mib: int, events: list[int]) -> DryRun:
    blocks = [Block(size * MIB, Part.ACTIVATIONS, "", "aten::mm", "", "float32") for size in sizes_mib]
    trace = Trace(blocks, events, [Mark(0, 0, str(Phase.FORWARD))], dict(FACTS))
    return DryRun(Workload(config="{}", recipe=RECIPE), trace, T4)


SMALL = dry_run_of(100, events=[0, ~0])
FLUSHED = dry_run_of(6000, 6100, 6200, events=[0, ~0, 1, ~1, 2, ~2])
STUCK = dry_run_of(5000, 5000, 100, 6000, events=[0, 1, ~0, 2, 3, ~3, ~2, ~1])
"""Tensors of 11,100 MiB at most; a small one in the first segment keeps that from being given back."""


@pytest.mark.parametrize(
    ("dry_run", "tensors", "fit"),
    [(SMALL, Fit.FITS, Fit.FITS), (FLUSHED, Fit.RISKY, Fit.TIGHT), (STUCK, Fit.RISKY, Fit.DOES_NOT_FIT)],
)
def test_the_end_of_the_replay_is_the_verdict(dry_run: DryRun, tensors: Fit, fit: Fit) -> None:
    model = find_model("0.5b")
    assert judge(dry_run.profile, T4).fit is tensors
    for plan in (with_dry_run(make_plan(model, RECIPE, T4), dry_run), plan_by_dry_run(model, RECIPE, T4, dry_run)):
        assert plan.dry_verdict is not None and plan.dry_verdict.fit is fit
        assert plan.final_verdict is not None and plan.final_verdict.fit is fit


def test_a_dry_run_and_its_plan_are_shown_by_how_they_end() -> None:
    assert repr(SMALL) == "DryRun(full on t4: 100.00 MiB allocated, 100.00 MiB reserved, comes through)"
    assert repr(STUCK).endswith("runs out of memory)")
    plan = plan_by_dry_run(find_model("0.5b"), RECIPE, T4, STUCK)
    assert str(plan).startswith("does not fit: full on t4, by dry run, needs ")
