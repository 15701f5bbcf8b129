"""Which part of a prediction is wrong: what a run shows of its parts, beside what is predicted for each.

torch counts tensors, not what they are for. But what is held when a phase begins tells parts apart: before the first
forward pass there are weights and adapters; after the first backward pass gradients besides; when the second step
begins, optimizer states instead of them. What a pass needs beyond what it began with are activations and logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median

from peftbench.check.groups import grouped
from peftbench.check.runs.comparison import Comparison
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase
from peftbench.records.environment import Outcome
from peftbench.records.run import Measurement

STATIC = (Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.UNQUANTIZED, Part.EXPERTS, Part.ADAPTERS)
STATES = (Part.OPTIMIZER, Part.WORKSPACE)
"""cuBLAS makes its workspaces in the first pass, so that they are held from then on, as states are."""


@dataclass(frozen=True)
class PartRow:
    """One part of one run."""

    part: str
    id: str
    measured_bytes: int
    predicted_bytes: int
    total_bytes: int
    """The allocated peak of the run, which errors are shares of: small parts may be wrong without harm."""

    @property
    def error_bytes(self) -> int:
        """Positive when too much is predicted."""
        return self.predicted_bytes - self.measured_bytes

    @property
    def share(self) -> float:
        """The error as a fraction of the run's peak."""
        return self.error_bytes / self.total_bytes


@dataclass(frozen=True)
class PartAccuracy:
    """The errors of one part over the runs, as fractions of each run's allocated peak."""

    part: str
    rows: int
    median: float
    worst: float
    bias: float
    worst_id: str


def part_rows(comparison: Comparison) -> tuple[PartRow, ...]:
    """The parts of a training run that ended well; none of a plain loop, whose outputs outlive the step."""
    found, profile, recipe = comparison.record.measurement, comparison.profile, comparison.record.case.recipe
    plain = not isinstance(recipe, TrainingSpec) or recipe.loop == "plain"
    if found.outcome is not Outcome.OK or profile is None or plain:
        return ()
    measured, predicted = _measured(found), _predicted(profile)
    id, total = comparison.record.case.id, found.allocated_bytes or 0
    return tuple(PartRow(part, id, size, predicted[part], total) for part, size in measured.items() if total)


def accuracies_of_parts(rows: Iterable[PartRow]) -> tuple[PartAccuracy, ...]:
    """One line a part, the worst first."""
    found = [_accuracy(part, group) for part, group in grouped(rows, lambda row: row.part).items()]
    return tuple(sorted(found, key=lambda accuracy: -accuracy.worst))


def _accuracy(part: str, rows: list[PartRow]) -> PartAccuracy:
    worst = max(rows, key=lambda row: abs(row.share))
    shares = [abs(row.share) for row in rows]
    return PartAccuracy(part, len(rows), median(shares), abs(worst.share), mean(r.share for r in rows), worst.id)


def _measured(found: Measurement) -> dict[str, int]:
    at = {(peak.step, peak.phase): peak for peak in found.phases}
    first, states = at.get((0, Phase.FORWARD)), at.get((1, Phase.FORWARD))
    if first is None or states is None or first.held_bytes is None or states.held_bytes is None:
        return {}
    passes = [at[1, phase].allocated_bytes for phase in (Phase.FORWARD, Phase.BACKWARD) if (1, phase) in at]
    step = at.get((1, Phase.STEP))
    return {
        "weights and adapters": first.held_bytes,
        "optimizer states": states.held_bytes - first.held_bytes,
        "forward and backward": max(passes) - states.held_bytes,
        "optimizer step": step.allocated_bytes - states.held_bytes if step else 0,
    }


def _predicted(profile: MemoryProfile) -> dict[str, int]:
    held = sum(c.bytes for c in profile.alive_in(Phase.FORWARD) if c.part in STATIC)
    states = sum(c.bytes for c in profile.alive_in(Phase.FORWARD) if c.part in STATES)
    passes = max(profile.allocated_in(phase) for phase in (Phase.FORWARD, Phase.BACKWARD))
    return {
        "weights and adapters": held,
        "optimizer states": states,
        "forward and backward": passes - held - states,
        "optimizer step": profile.allocated_in(Phase.STEP) - held - states,
    }
