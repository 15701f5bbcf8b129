"""The nearest changes that would make a recipe fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError
from peftbench.decide.asked import Asked, arguments_of, asked_over, in_order
from peftbench.decide.plan.largest import judged, last, may_fit
from peftbench.decide.plan.savings import SAVINGS, Reach, Saving
from peftbench.decide.recipe import Difference, Options, recipe_options
from peftbench.decide.verdict import Fit, Unpriced, Verdict, judge, widened
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.inputs.recipe.option import Value
from peftbench.memory import MemoryProfile


class Change(NamedTuple):
    """One or more options set differently, and what that leads to."""

    options: Options
    """All that is to be typed over the question, in the order of `arguments`."""
    differences: tuple[Difference, ...]
    """Those of them that have another value now."""
    price: str
    """What it costs, in words."""
    training: TrainingSpec
    """The changed recipe, ready to be planned or run."""
    profile: MemoryProfile
    """What it takes."""
    verdict: Verdict
    doubted: bool = False
    """Whether a setting that is not priced may turn the verdict."""

    def under(self, unpriced: tuple[Unpriced, ...]) -> Change:
        """The same change beside settings that are not priced."""
        verdict = widened(self.verdict, unpriced)
        return self._replace(verdict=verdict, doubted=any(each.may_turn(verdict) for each in unpriced))

    @property
    def device_bytes(self) -> int:
        """Its peak on the device."""
        return self.profile.device_bytes

    @property
    def fit(self) -> Fit:
        """What the change leads to."""
        return self.verdict.fit

    @property
    def option(self) -> str:
        """As typed: "--loss"; several are joined by " + "."""
        return " + ".join(d.option for d in self.differences)

    @property
    def before(self) -> Value:
        """The value that is set now; those of several options are joined as text."""
        return self._joined([d.before for d in self.differences])

    @property
    def after(self) -> Value:
        """The value to set; those of several options are joined as text."""
        return self._joined([d.after for d in self.differences])

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to type: ("--loss", "liger")."""
        return arguments_of(self.options)

    @staticmethod
    def _joined(values: Sequence[Value]) -> Value:
        return values[0] if len(values) == 1 else " + ".join(map(str, values))


class _Setting(NamedTuple):
    """A saving at one of its values."""

    saving: Saving
    value: Any


def suggest(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, asked: Asked | None = None
) -> tuple[Change, ...]:
    """The changes that improve the verdict, from free to costly; none when the recipe fits already.

    Each saving is tried alone, first those that only change how the step is computed. Where none
    of them fits, the cheapest that fit together follow; then likewise what changes the result and the method.
    A change is what typing its options makes of the question: `asked`, or else the recipe itself.
    """
    search = _Search(model, training, gpu, asked or asked_over(training))
    if search.start.fit is Fit.FITS:
        return ()
    found: list[Change] = []
    for reach in Reach:
        found = search.alone([each for each in SAVINGS if each.reach is reach], found)
        if not any(change.fit is Fit.FITS for change in found):
            found += search.together([each for each in SAVINGS if each.reach.value <= reach.value])
    return tuple(found)


def _replaces(cheaper: Change, change: Change) -> bool:
    """Whether a cheaper change of the same option leads as far."""
    shared = {d.option for d in cheaper.differences} & {d.option for d in change.differences}
    return bool(shared) and cheaper.fit.rank <= change.fit.rank


class _Search:
    """Tries savings on one question and remembers what it starts from.

    What is tried are options; every recipe is made of them as the command line makes it.
    """

    def __init__(self, model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, asked: Asked) -> None:
        self.model, self.training, self.gpu, self.asked = model, training, gpu, asked
        self.start = judge(estimate_training(model, training, gpu), gpu)
        self.made: dict[tuple[Any, ...], TrainingSpec | None] = {}
        self.judged: dict[TrainingSpec, Verdict | None] = {}

    @cached_property
    def needed(self) -> Options | None:
        """What has to be typed to get the recipe itself: what a question about several methods has in common."""
        return self.asked.leading_to(self.training, self.model, self.gpu)

    def alone(self, savings: Iterable[Saving], before: Sequence[Change]) -> list[Change]:
        """Add each saving at its mildest value that fits, unless a cheaper change of its option does it too."""
        found = list(before)
        for saving in savings:
            setting = self.mildest([], saving)
            change = setting and self.change([setting])
            if change and self._improves(change) and not any(_replaces(c, change) for c in found):
                found.append(change)
        return found

    def together(self, savings: Iterable[Saving]) -> list[Change]:
        """Add savings, the cheapest first, until the recipe fits; then take back what turns out not to be needed."""
        settings: list[_Setting] = []
        for saving in savings:
            setting = self.mildest(settings, saving)
            if setting and self._saves(settings, setting):
                settings.append(setting)
            if self._fits(settings):
                break
        for setting in reversed(settings):
            fewer = [s for s in settings if s is not setting]
            if self._fits(settings) and self._fits(fewer):
                settings = fewer
        change = self.change(settings) if len(settings) > 1 else None
        return [change] if change and self._improves(change) else []

    def mildest(self, settings: Sequence[_Setting], saving: Saving) -> _Setting | None:
        """The first value that fits beside these settings, or the strongest; more strength never needs more memory."""
        current = self.recipe(self.options(settings))
        values = saving.values(current, self.model, self.gpu) if current else ()
        if not values:
            return None

        def misses(number: int) -> bool:
            return not self._fits([*settings, _Setting(saving, values[number - 1])])

        return _Setting(saving, values[min(last(misses, 1, len(values)), len(values) - 1)])

    def options(self, settings: Iterable[_Setting]) -> Options:
        """What to type for these settings, each with what those before it have set."""
        typed: Options = {}
        for setting in settings:
            typed |= setting.saving.options(self.recipe(typed) or self.training, setting.value)
        return typed

    def recipe(self, typed: Options) -> TrainingSpec | None:
        """What typing these options leads to; None where they cannot be typed or run."""
        key = tuple(typed.items())
        if key not in self.made:
            self.made[key] = self._recipe(typed)
        return self.made[key]

    def _recipe(self, typed: Options) -> TrainingSpec | None:
        if self.needed is None:
            return None
        try:
            return self.asked.recipe({**self.needed, **typed}, self.model, self.gpu)
        except SpecError:
            return None

    def change(self, settings: Sequence[_Setting]) -> Change | None:
        """These settings as a Change; None where they change nothing or cannot be."""
        before = {"method": self.training.method, **recipe_options(self.training)}
        typed = {name: value for name, value in self.options(settings).items() if before[name] != value}
        training = self.recipe(typed)
        if training is None or not typed:
            return None
        try:
            profile = estimate_training(self.model, training, self.gpu)
        except SpecError:
            return None
        price = "; ".join(dict.fromkeys(s.saving.price for s in settings))
        differences = tuple(Difference(name, before[name], value) for name, value in in_order(typed).items())
        options = in_order({**(self.needed or {}), **typed})
        return Change(options, differences, price, training, profile, judge(profile, self.gpu))

    def _verdict(self, settings: Sequence[_Setting]) -> Verdict | None:
        training = self.recipe(self.options(settings))
        if training is not None and training not in self.judged:
            self.judged[training] = judged(self.model, training, self.gpu)
        return self.judged[training] if training else None

    def _fits(self, settings: Sequence[_Setting]) -> bool:
        training = self.recipe(self.options(settings))
        if training is None or not (training in self.judged or may_fit(self.model, training, self.gpu)):
            return False
        verdict = self._verdict(settings)
        return verdict is not None and verdict.fit is Fit.FITS

    def _saves(self, settings: Sequence[_Setting], setting: _Setting) -> bool:
        before, after = self._verdict(settings), self._verdict([*settings, setting])
        return before is not None and after is not None and after.high_bytes < before.high_bytes

    def _improves(self, change: Change) -> bool:
        return change.fit.rank < self.start.fit.rank
