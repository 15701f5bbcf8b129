"""A run record as calibration sees it: the card it had, its memory beyond tensors, and the time of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import with_speed
from peftbench.check.calibration.time import TimedRun
from peftbench.check.runs.comparison import card_of
from peftbench.decide.calibrated import card_name
from peftbench.decide.suite.predict_case import CPU, model_of, predict_case
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import MemoryProfile, Part
from peftbench.records.calibration import Constant, card_constants
from peftbench.records.run import RunRecord

CPU_REFERENCE = replace(CPU, tensor_flops=10**12, float32_flops=10**12, memory_bandwidth=10**11)
"""Units for a CPU, whose data sheet nobody has: its efficiency is of 1 TFLOP/s, its traffic of 100 GB/s."""


@dataclass(frozen=True)
class Run:
    """One record of a run that ended well."""

    record: RunRecord

    @cached_property
    def case(self) -> str:
        """Equal for runs of the same case."""
        return self.record.case.key

    @cached_property
    def card(self) -> GpuSpec:
        """As the run saw it, with what the catalogue knows of its speed."""
        card = card_of(self.record)
        if card is None:
            return CPU_REFERENCE
        return replace(with_speed(card), name=card_name(card.product))

    @cached_property
    def profile(self) -> MemoryProfile | None:
        """By what holds for cards in general; None where no formula covers the run."""
        return self.profile_with({})

    def profile_with(self, constants: Mapping[str, Constant]) -> MemoryProfile | None:
        """By these constants."""
        try:
            return predict_case(self.record.case, self.card.calibrated(card_constants(constants)))
        except SpecError:
            return None

    @property
    def context_bytes(self) -> int | None:
        """Device peak less reserved: what is on the device beyond the allocator's segments."""
        found = self.record.measurement
        if found.device_peak_bytes is None or found.reserved_bytes is None:
            return None
        beyond_bytes = found.device_peak_bytes - found.reserved_bytes
        return beyond_bytes if beyond_bytes > 0 else None  # samples that missed the peak tell nothing

    @cached_property
    def slack_factor(self) -> float | None:
        """Reserved less allocated, by what is modelled; None where either is unknown, and on a card that is full."""
        found, profile = self.record.measurement, self.profile
        if found.reserved_bytes is None or found.allocated_bytes is None or profile is None:
            return None
        modelled_bytes = profile.bytes_of(Part.SLACK)
        if profile.device_bytes < profile.needed_bytes:
            return None
        return max(0, found.reserved_bytes - found.allocated_bytes) / modelled_bytes if modelled_bytes > 0 else None

    @cached_property
    def timed(self) -> TimedRun | None:
        """Its median step; None for inference, and where no formula covers the run."""
        case, recipe, seconds = self.record.case, self.record.case.recipe, self.record.measurement.step_s
        if not isinstance(recipe, TrainingSpec) or not seconds or median(seconds) <= 0:
            return None
        if self.card.is_cpu:
            recipe = replace(recipe, autocast=True)  # the formula knows a 16-bit rate: fitted, it is that of float32
        try:
            found = TimedRun(case.key, median(seconds), model_of(case), recipe, self.card)
            return found if found.has_formula else None
        except SpecError:
            return None
