"""What a card costs by the hour: reads prices.csv, a snapshot of offers, and price files in the same columns.

A price is that of the whole instance, in US dollars. `date` is the day on which the source states the price; a
source that does not say has none, and its age is unknown. Slices of a card are left out: they are other cards.
"""

from __future__ import annotations

import csv
import os.path
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import IO, Any

from peftbench.base.errors import CatalogError, did_you_mean, located
from peftbench.base.files import read_text
from peftbench.catalog.gpus import find_gpu

PRICES_CSV = os.path.join(os.path.dirname(__file__), "prices.csv")
KINDS = ("on-demand", "spot", "own")
PURCHASE = "purchase"
CURRENCIES = ("usd",)
REQUIRED = ("gpu", "usd_per_hour")
KNOWN = ("provider", "gpu", "gpu_count", "instance_type", "kind", "usd_per_hour", "purchase_usd", "region", "date",
         "source", "currency")  # fmt: skip
LEAST_USD, MOST_USD = 0.001, 100_000
"""Less or more than that an hour is a typing error: the dearest instance of the snapshot costs a thousandth of it."""
MOST_GPUS = 4096


@dataclass(frozen=True, kw_only=True)
class Offer:
    """An instance that can be had by the hour; a card of one's own costs its electricity."""

    provider: str
    gpu: str
    """A name of the catalogue."""
    gpu_count: int
    instance_type: str
    kind: str
    """One of KINDS; what is sold as spot may be taken away at any time."""
    usd_per_hour: float
    """For the whole instance."""
    region: str = ""
    date: str | None = None
    """ISO day of the price; None where the source does not say."""
    source: str = ""

    @property
    def usd_per_gpu_hour(self) -> float:
        """The price of one of its cards."""
        return self.usd_per_hour / self.gpu_count


@cache
def list_offers() -> tuple[Offer, ...]:
    """Every offer of the snapshot, in the order of the file."""
    return tuple(offer_of(row, line) for line, row in enumerate(_snapshot(), 2) if row["kind"] != PURCHASE)


def find_offers(
    gpu: str | None = None, provider: str | None = None, kinds: Iterable[str] = KINDS,
    offers: tuple[Offer, ...] | None = None,
) -> tuple[Offer, ...]:
    """The offers of a card (None: of all), of a provider (None: of all) and of some kinds; the snapshot's by default.

    A provider is found by its name or the start of it: "runpod" is "runpod secure" too. Raises CatalogError for one
    that has no offer.
    """
    known = list_offers() if offers is None else offers
    start = None if provider is None else provider.strip().lower()
    found = [offer for offer in known if start is None or (start and offer.provider.lower().startswith(start))]
    if provider is not None and not found:
        names = sorted({offer.provider for offer in known})
        what = f"unknown provider {provider[:40]!r}. {did_you_mean(provider[:40], names)}".rstrip()
        raise CatalogError(what, f"Prices are known of {', '.join(names)}; or give your own with --prices FILE.csv.")
    wanted = tuple(kinds)
    return tuple(offer for offer in found if offer.kind in wanted and gpu in (None, offer.gpu))


@cache
def purchase_usd(gpu: str) -> float | None:
    """What a card cost to buy when it came out (list price); None where no source says."""
    bought = (row for row in _snapshot() if row["kind"] == PURCHASE)
    return next((float(row["purchase_usd"]) for row in bought if row["gpu"] == gpu), None)


@cache
def _snapshot() -> tuple[dict[str, str], ...]:
    with open(PRICES_CSV, encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


# ── a price file of the user ────────────────────────────────────────────────────────────────────────────────────────


def read_offers(path: str) -> tuple[Offer, ...]:
    """Read a CSV with at least the columns gpu and usd_per_hour; raises CatalogError that names the line."""
    from io import StringIO

    name = os.path.basename(path)
    text = read_text(path, "Give the path of a CSV file.")
    try:
        offers = tuple(_offers(StringIO(text, newline=""), name))
    except csv.Error as error:
        raise CatalogError(f"{name[:60]!r} is not a CSV file: {error}.", _columns()) from None
    if not offers:
        raise CatalogError(f"{name[:60]!r} has no prices.", _columns())
    return offers


def _offers(file: IO[str], name: str) -> Iterator[Offer]:
    rows = csv.DictReader(file)
    rows.fieldnames = _headings(tuple(rows.fieldnames or ()), name)
    for row in rows:
        with located(f"{name[:60]!r}, line {rows.line_num}", CatalogError):
            if None in row:
                raise CatalogError("there are more cells than columns.", 'Write "1,200" in quotation marks, or 1200.')
            offer = offer_of(row, rows.line_num)
        yield offer


def _headings(typed: tuple[str, ...], name: str) -> list[str]:
    """The columns of a file, each once and known."""
    headings = [heading.strip().lower() for heading in typed]
    for column in REQUIRED:
        if headings.count(column) != 1:
            what = "two columns" if column in headings else "no column"
            raise CatalogError(f"{name[:60]!r} has {what} {column}.", _columns())
    strange = next((heading for heading in headings if heading not in KNOWN), None)
    if strange is not None:
        near = did_you_mean(strange[:40], KNOWN)
        raise CatalogError(f"{name[:60]!r} has an unknown column {strange[:40]!r}. {near}".rstrip(), _columns())
    return headings


def _columns() -> str:
    more = ", ".join(KNOWN[:1] + KNOWN[2:5])
    return f"A price file starts with: gpu,usd_per_hour; it may also have {more} …, with commas between."


def offer_of(row: Mapping[str, Any], line: int) -> Offer:
    """An offer from a row of a price file; raises CatalogError for what is no price, card, kind or currency."""
    _one_of("currency", (row.get("currency") or "usd").strip().lower(), CURRENCIES)
    if (row.get("kind") or "").strip().lower() == PURCHASE:
        raise CatalogError("that is a price to buy.", "Leave the line out, and give the price by --purchase-price.")
    return Offer(
        provider=(row.get("provider") or "your price file").strip(),
        gpu=find_gpu(row["gpu"] or "").name,
        gpu_count=_count(row.get("gpu_count") or "1"),
        instance_type=(row.get("instance_type") or f"line {line}").strip(),
        kind=_one_of("kind", (row.get("kind") or "on-demand").strip().lower(), KINDS),
        usd_per_hour=price_of(row["usd_per_hour"] or ""),
        region=(row.get("region") or "").strip(),
        date=_date(row.get("date") or ""),
        source=(row.get("source") or "given").strip(),
    )


def price_of(text: str) -> float:
    """A price in US dollars: "1.20" or "$1.20". Raises CatalogError for text, zero and negative numbers."""
    try:
        price = float(text.strip().removeprefix("$").replace("_", "?"))  # float reads 1_0 as ten
    except ValueError:
        what = f"{text[:40]!r} is not a price."
        raise CatalogError(what, "Write a number of US dollars, as in 1.20; other currencies are not known.") from None
    if not LEAST_USD <= price <= MOST_USD:
        hint = f"Write US dollars from {LEAST_USD:g} to {MOST_USD:,}."
        raise CatalogError(f"a price cannot be {text.strip()[:40]}.", hint)
    return price


def _count(text: str) -> int:
    plain = text.strip().isdecimal() and text.isascii() and len(text) < 20  # int gives up on thousands of digits
    number = int(text) if plain else 0
    if not 1 <= number <= MOST_GPUS:
        raise CatalogError(f"gpu_count cannot be {text[:40]!r}.", f"Write a whole number from 1 to {MOST_GPUS:,}.")
    return number


def _date(text: str) -> str | None:
    from datetime import date

    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise CatalogError(f"{text[:40]!r} is not a date.", "Write it as in 2026-09-06, or leave it empty.") from None


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        near = did_you_mean(value[:40], known)
        raise CatalogError(f"unknown {name} {value[:40]!r}. {near}".rstrip(), f"Choose one of {', '.join(known)}.")
    return value
