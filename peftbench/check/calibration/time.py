"""The part of a calibration that is about time: which constants of estimate/time/step.py the steps of a card decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from peftbench.check.speed.constants_fit import Observation, fit
from peftbench.estimate.time.step import constants_of, step_time
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.records.calibration import Constant


class Group(NamedTuple):
    """Constants with one cause, which are wrong by one factor on a card: only that factor is fitted."""

    fields: Mapping[str, str]
    """Fields of TimeConstants, with their units."""
    width: float
    """The factor to which their priors are good."""


GROUPS = {
    "efficiency": Group({"matmul_share": "of tensor_flops"}, 1.6),
    "launch floor": Group(
        {
            "layer_launch_s": "s a layer and pass",
            "adapter_launch_s": "s a matrix and pass",
            "quantized_launch_s": "s a layer and pass",
        },
        2.0,
    ),
    "dequantization": Group({"dequantized_bytes": "moved for a 4-bit weight"}, 2.0),
}
"""A host that launches slowly launches everything slowly.

Widths are what published runs span: efficiency 0.29 to 0.78 around 0.51 on A100; 4.7 to 6.9 ms a layer and micro-step,
and the processors beside one card differ as much again; dequantization 2.2 to 4.6 passes around 3.6.
"""

CPU_WIDTH = 100.0
"""A CPU has no prior: its speed is that of its records."""


class TimedRun(NamedTuple):
    """Steps that were timed, and what they were steps of."""

    case: str
    measured_s: float
    model: ModelSpec
    recipe: TrainingSpec
    card: GpuSpec

    @property
    def has_formula(self) -> bool:
        """Whether the card's data sheet is known and the recipe covered. Raises SpecError where PEFT would refuse."""
        return step_time(self.model, self.recipe, self.card) is not None

    def step_s(self, fields: Mapping[str, float]) -> float:
        """By the priors, with these fields of TimeConstants in their place."""
        given: dict[str, Any] = dict(fields)
        found = step_time(self.model, self.recipe, self.card, constants=constants_of(self.card)._replace(**given))
        assert found is not None
        return found.step_s

    def step_s_by(self, factors: Mapping[str, float]) -> float:
        """By the priors, each group of them multiplied."""
        return self.step_s({
            field: getattr(constants_of(self.card), field) * factor
            for name, factor in factors.items()
            for field in GROUPS[name].fields
        })  # fmt: skip


def fit_time(runs: Sequence[TimedRun]) -> dict[str, Constant]:
    """Each field of GROUPS, decided by the runs or not; none where there are no runs."""
    if not runs:
        return {}
    card = runs[0].card
    widths = {name: CPU_WIDTH if card.is_cpu else group.width for name, group in GROUPS.items()}
    formulas: dict[object, Callable[[Mapping[str, float]], float]] = {}
    seen = [
        Observation(run.case, run.measured_s, formulas.setdefault((run.model, run.recipe, run.card), run.step_s_by))
        for run in runs
    ]
    found = fit(seen, dict.fromkeys(GROUPS, 1.0), widths)
    return {
        field: Constant(prior * factor.value, prior * factor.low, prior * factor.high, unit, factor.runs)
        for name, factor in found.items()
        for field, unit in GROUPS[name].fields.items()
        for prior in [getattr(constants_of(card), field)]
    }
