"""Prices of today from gpuhunt, where it is installed and the machine is online."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from peftbench.base.errors import CatalogError, install_hint
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.prices import Offer

PROVIDERS = ("aws", "azure", "cloudrift", "gcp", "lambdalabs", "nebius", "oci", "runpod", "verda")
"""Those whose catalogues dstack publishes (OFFLINE_PROVIDERS in gpuhunt 0.1.34). gpuhunt asks the others one by one,
some of them with a key, and gives up where a single one does not answer."""
NEARLY = 1.1
"""gpuhunt states the memory of a card in whole GB, near to what the box says."""


def live_offers() -> tuple[Offer, ...]:
    """Every offer that gpuhunt knows of cards in the catalogue; raises CatalogError where it cannot be asked."""
    try:
        import gpuhunt
    except ImportError:
        raise CatalogError("live prices need gpuhunt.", install_hint(extra="prices")) from None
    logging.getLogger("gpuhunt").setLevel(logging.CRITICAL)  # it logs a traceback for each provider it cannot reach
    try:
        items = gpuhunt.query(provider=list(PROVIDERS), min_gpu_count=1)
    except Exception as error:  # gpuhunt raises its own, those of requests and those of zipfile
        what = f"gpuhunt found no prices: {str(error)[:200]}"
        raise CatalogError(what.rstrip(".") + ".", "Without --live-prices the dated snapshot is used.") from None
    offers = tuple(_offers(items))
    if not offers:
        raise CatalogError("gpuhunt found no card of the catalogue.", "Without --live-prices the snapshot is used.")
    return offers


def _offers(items: Iterable[Any]) -> Iterable[Offer]:
    from datetime import date

    today = date.today().isoformat()
    for item in items:
        gpu = gpu_named(item.gpu_name or "", item.gpu_memory or 0)
        if gpu and item.gpu_count and item.price > 0:
            yield Offer(
                provider=item.provider, gpu=gpu, gpu_count=item.gpu_count, instance_type=item.instance_name,
                kind="spot" if item.spot else "on-demand", usd_per_hour=item.price, region=item.location or "",
                date=today, source="gpuhunt",
            )  # fmt: skip


def gpu_named(name: str, memory_gb: float) -> str | None:
    """The catalogue's name of a card that gpuhunt calls "A100" with 80 GB; None for a card we do not know."""
    for spelling in (f"{name}-{memory_gb:g}GB", name, f"rtx{name}"):
        try:
            gpu = find_gpu(spelling)
        except CatalogError:
            continue
        if gpu.nominal_gb and 1 / NEARLY <= memory_gb / gpu.nominal_gb <= NEARLY:
            return gpu.name
    return None
