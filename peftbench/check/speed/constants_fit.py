"""Fit a few constants of a formula to measurements, and tell which of them the measurements decide.

What: the constants c for which predicted times p(c) are nearest to measured ones t, in factors.

Derivation: errors of the formula and doubt about the constants are factors, so both are normal in logarithms, and the
likeliest x = ln(c / prior) has the least  Σ w ((ln t - ln p(x)) / MODEL_ERROR)² + Σ (x / width)².  Gauss and Newton:
with J = ∂ ln p / ∂x, each step solves  (Jᵀ w J / MODEL_ERROR² + 1 / width²) Δx = Jᵀ w r / MODEL_ERROR² - x / width².
The inverse of that matrix is the covariance of x, so a constant whose deviation is not even halved was decided by its
prior: it stays there, and the others are fitted again. The weights are Huber's, so that one run that was disturbed
does not move the rest. Source: any text on maximum a posteriori estimation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MODEL_ERROR = 0.1
"""Standard deviation of ln(measured / predicted) once a card's constants are right.

Half of 42 published runs of one card are within 6.6 % of a fit (Qwen's README), which is 0.67 of a deviation.
"""

HUBER = 1.5
"""Deviations beyond which a run counts less the further off it is."""

STEPS = 50
TELLS = 0.1
"""A run depends on a constant where 10 % more of it makes at least 1 % of time."""
_NEAR = 1e-3
"""For the derivative, and for the end of the search: far below what times repeat to."""

Constants = Mapping[str, float]


@dataclass(frozen=True)
class Observation:
    """A measured time, and the formula of it."""

    case: str
    """Runs of one case repeat the same errors: together they weigh as one."""
    measured_s: float
    predict: Callable[[Constants], float]
    """Called once for all that share it."""


@dataclass(frozen=True)
class Decided:
    """A constant, with one standard deviation to either side."""

    value: float
    low: float
    high: float
    runs: int
    """That depend on it; 0: they say too little, and `value` is the prior."""


def fit(seen: Sequence[Observation], priors: Constants, widths: Constants) -> dict[str, Decided]:
    """The constants named in `widths`, whose prior is good to that factor; `seen` may be a single one, or none."""
    free = [name for name in widths if priors[name] > 0]
    while True:
        found = _search(seen, priors, {name: widths[name] for name in free})
        open_ = [name for name in free if found[name].deviation > math.log(widths[name]) / 2]
        if not open_:
            break
        free.remove(max(open_, key=lambda name: found[name].deviation / math.log(widths[name])))
    return {name: _decided(priors[name], widths[name], found.get(name)) for name in widths}


def _decided(prior: float, width: float, found: _Found | None) -> Decided:
    if found is None:
        return Decided(prior, prior / width, prior * width, 0)
    value, low, high = (prior * math.exp(found.log + side * found.deviation) for side in (0, -1, 1))
    return Decided(value, low, high, found.runs)


class _Found(NamedTuple):
    """ln(value / prior), its standard deviation, and how many runs depend on it."""

    log: float
    deviation: float
    runs: int


def _search(seen: Sequence[Observation], priors: Constants, widths: Constants) -> dict[str, _Found]:
    """The likeliest value of each constant of `widths`, the others at their priors."""
    names = list(widths)
    inverse = [math.log(widths[name]) ** -2 for name in names]
    at, repeats = [0.0] * len(names), Counter(one.case for one in seen)
    formulas = dict.fromkeys(one.predict for one in seen)
    for _ in range(STEPS):
        found = {formula: _predicted(formula, priors, dict(zip(names, at, strict=True))) for formula in formulas}
        rows = [_row(one, repeats[one.case], *found[one.predict]) for one in seen]
        curvature = [[sum(w * j[a] * j[b] for w, _, j in rows) for b in range(len(at))] for a in range(len(at))]
        for a, prior in enumerate(inverse):
            curvature[a][a] += prior
        covariance = _inverted(curvature)
        slope = [sum(w * r * j[a] for w, r, j in rows) - prior * at[a] for a, prior in enumerate(inverse)]
        move = [sum(c * s for c, s in zip(line, slope, strict=True)) for line in covariance]
        longest = max(map(abs, move), default=0.0)
        at = [value + step / max(1.0, longest) for value, step in zip(at, move, strict=True)]
        if longest < _NEAR:
            break
    runs = [sum(abs(j[a]) >= TELLS for _, _, j in rows) for a in range(len(names))]
    return {name: _Found(at[a], math.sqrt(covariance[a][a]), runs[a]) for a, name in enumerate(names)}


def _predicted(predict: Callable[[Constants], float], priors: Constants, at: Constants) -> tuple[float, list[float]]:
    """ln of the predicted time, and its derivatives."""

    def log_of(logs: Constants) -> float:
        return math.log(predict({**priors, **{name: priors[name] * math.exp(x) for name, x in logs.items()}}))

    here = log_of(at)
    return here, [(log_of({**at, name: at[name] + _NEAR}) - here) / _NEAR for name in at]


def _row(one: Observation, repeats: int, here: float, slopes: list[float]) -> tuple[float, float, list[float]]:
    """Weight, ln(measured / predicted) and its derivatives, of one observation."""
    residual = math.log(one.measured_s) - here
    trust = min(1.0, HUBER * MODEL_ERROR / abs(residual)) if residual else 1.0
    return trust / repeats / MODEL_ERROR**2, residual, slopes


def _inverted(matrix: list[list[float]]) -> list[list[float]]:
    """By Gauss and Jordan; the priors on its diagonal keep it positive definite, so no row has to be exchanged."""
    size = len(matrix)
    rows = [[*line, *(float(i == j) for j in range(size))] for i, line in enumerate(matrix)]
    for i in range(size):
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(size):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [line[size:] for line in rows]
