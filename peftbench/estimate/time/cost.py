"""Hours and money of a training run on an offer, and when a card of one's own is cheaper than a rented one."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.base.errors import SpecError

SECONDS_PER_HOUR = 3600
HOURS_OF_DAYS = 100
"""From here on a time is shown in days."""
WATTS_PER_KILOWATT = 1000


class Band(NamedTuple):
    """A figure that is not exact: what is expected, and between which two it lies."""

    expected: float
    low: float
    high: float


class Cost(NamedTuple):
    """What a run takes."""

    hours: Band
    usd: Band


def cost_of(tokens: Band, tokens_per_s: Band, usd_per_hour: float, setup_hours: float = 0.0) -> Cost:
    """Hours = setup + tokens / rate, money = hours × price.

    The fewest tokens go at the highest rate, the most at the lowest. Evaluation and checkpoints are not in it.
    """
    if min(tokens_per_s) <= 0 or min(tokens) <= 0:
        raise SpecError("tokens and tokens per second must be above 0.")
    hours = Band(
        setup_hours + tokens.expected / tokens_per_s.expected / SECONDS_PER_HOUR,
        setup_hours + tokens.low / tokens_per_s.high / SECONDS_PER_HOUR,
        setup_hours + tokens.high / tokens_per_s.low / SECONDS_PER_HOUR,
    )
    return Cost(hours, Band(*(each * usd_per_hour for each in hours)))


def power_usd_per_hour(watts: float, usd_per_kwh: float) -> float:
    """Electricity of cards at full power: W / 1000 × price of a kWh. The computer around them is not in it."""
    return watts / WATTS_PER_KILOWATT * usd_per_kwh


def break_even_hours(purchase_usd: float, rent_usd_per_hour: float, power_usd_per_hour: float) -> float | None:
    """Hours of use after which buying is cheaper; None where the electricity costs as much as renting.

    Solves purchase + hours × power = hours × rent. What the card could be sold for again is not in it.
    """
    saved = rent_usd_per_hour - power_usd_per_hour
    return purchase_usd / saved if saved > 0 else None


def human_hours(hours: float) -> str:
    """Two figures or more, in the unit that keeps them readable: "36 s", "12 min", "3.4 h", "5.1 d"."""
    if hours < 1 / 60:
        return f"{SECONDS_PER_HOUR * hours:.2g} s"
    if hours < 1:
        return f"{60 * hours:,.0f} min" if hours >= 1 / 6 else f"{60 * hours:,.1f} min"
    return f"{hours:,.1f} h" if hours < HOURS_OF_DAYS else f"{hours / 24:,.1f} d"


def human_usd(usd: float) -> str:
    """Dollars and cents, without the sign; two figures of less than ten cents."""
    return f"{usd:,.2f}" if usd >= 0.1 else f"{usd:.2g}"
