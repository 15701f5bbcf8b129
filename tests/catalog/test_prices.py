"""Prices: every row of the snapshot can be used, and a price file says what is wrong with which line."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest

from peftbench.base.errors import CatalogError
from peftbench.catalog.gpus import find_gpu, list_gpus
from peftbench.catalog.prices import (
    KINDS,
    PRICES_CSV,
    find_offers,
    list_offers,
    price_of,
    purchase_usd,
    read_offers,
)
from peftbench.catalog.prices_live import PROVIDERS, gpu_named, live_offers


def test_every_row_has_a_known_card_a_price_and_a_source() -> None:
    with open(PRICES_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list_offers()) + sum(row["kind"] == "purchase" for row in rows)
    for row in rows:
        assert find_gpu(row["gpu"]).name == row["gpu"]
        assert row["source"] and row["provider"]
        assert "copy of" not in row["source"], "name what was published, where and when"
        assert bool(row["usd_per_hour"]) != bool(row["purchase_usd"])


def test_offers_are_found_by_card_provider_and_kind() -> None:
    assert {offer.gpu for offer in find_offers("h100-sxm")} == {"h100-sxm"}
    assert {offer.provider for offer in find_offers(provider="runpod")} == {"runpod secure", "runpod serverless flex"}
    assert {offer.kind for offer in find_offers(kinds=("spot",))} == {"spot"}
    with pytest.raises(CatalogError, match="Did you mean azure"):
        find_offers(provider="azzure")


def test_spot_is_cheaper_than_the_same_instance_on_demand() -> None:
    by_instance = {(o.provider, o.instance_type, o.region): o for o in list_offers() if o.kind == "on-demand"}
    spots = find_offers(kinds=("spot",))
    assert spots
    for spot in spots:
        assert spot.usd_per_hour < by_instance[spot.provider, spot.instance_type, spot.region].usd_per_hour


def test_what_a_card_costs_to_buy() -> None:
    assert purchase_usd("rtx4090") == 1599
    assert purchase_usd("h100-sxm") is None


def write(folder: Path, text: str) -> str:
    path = folder / "prices.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_price_file_needs_two_columns(tmp_path: Path) -> None:
    (offer,) = read_offers(write(tmp_path, "gpu,usd_per_hour\n4090,0.35\n"))
    assert read_offers(write(tmp_path, "GPU, USD_per_hour\n4090,0.35\n")) == (offer,)
    assert (offer.gpu, offer.gpu_count, offer.kind, offer.usd_per_hour) == ("rtx4090", 1, "on-demand", 0.35)
    assert offer.date is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu,usd_per_hour\n4090,cheap\n", "line 2: 'cheap' is not a price"),
        ("gpu,usd_per_hour\n4090,0.3\n4090,-1\n", "line 3: a price cannot be -1"),
        ("gpu,usd_per_hour\n4090,0\n", "a price cannot be 0"),
        ("gpu,usd_per_hour\n4090,nan\n", "a price cannot be nan"),
        ("gpu,usd_per_hour\n4090,inf\n", "a price cannot be inf"),
        ("gpu,usd_per_hour\n4090,\n", "'' is not a price"),
        ("gpu,usd_per_hour\n4090,€1\n", "other currencies"),
        ("gpu,usd_per_hour,currency\n4090,1,EUR\n", "unknown currency 'eur'"),
        ("gpu,usd_per_hour,kind\n4090,1,spott\n", "Did you mean spot"),
        ("gpu,usd_per_hour,gpu_count\n4090,1,many\n", "gpu_count cannot be 'many'"),
        ("gpu,usd_per_hour,date\n4090,1,yesterday\n", "not a date"),
        ("gpu,usd_per_hour\n4O9O,1\n", "unknown GPU"),
        ("gpu,price\n4090,1\n", "no column usd_per_hour"),
        ("gpu,usd_per_hour,gpu_cuont\n4090,1,1\n", "Did you mean gpu_count"),
        ("gpu,usd_per_hour\n", "has no prices"),
        ("gpu,usd_per_hour\n4090,1,200\n", "line 2: there are more cells than columns"),
        ("gpu,usd_per_hour\n4090,1_0\n", "'1_0' is not a price"),
        ("gpu,usd_per_hour\n4090,1e-320\n", "a price cannot be 1e-320"),
        ("gpu,usd_per_hour,gpu_count\n4090,1," + "9" * 4400 + "\n", "gpu_count cannot be '999"),
        ("gpu,usd_per_hour,gpu_count\n4090,1,٣\n", "gpu_count cannot be '٣'"),
        ("gpu,usd_per_hour,usd_per_hour\n4090,1,2\n", "has two columns usd_per_hour"),
        ("gpu,usd_per_hour,kind\n4090,1600,purchase\n", "--purchase-price"),
        ("gpu;usd_per_hour\n4090;1\n", "commas between"),
        ("", "no column gpu"),
    ],
)
def test_a_broken_price_file_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CatalogError) as raised:
        read_offers(write(tmp_path, text))
    assert words in str(raised.value)


def test_a_price_file_that_is_none(tmp_path: Path) -> None:
    binary = tmp_path / "prices.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(CatalogError, match="not text in UTF-8"):
        read_offers(str(binary))
    with pytest.raises(CatalogError, match="not a CSV file"):
        read_offers(write(tmp_path, "gpu,usd_per_hour\n4090," + "x" * 200_000))
    with pytest.raises(CatalogError, match="a device, not a file"):
        read_offers("/dev/zero")
    with pytest.raises(CatalogError, match="cannot read"):
        read_offers(str(tmp_path / "none.csv"))


def test_a_price_may_have_a_dollar_sign() -> None:
    assert price_of(" $1.20 ") == 1.2


@pytest.mark.parametrize(
    ("name", "memory_gb", "gpu"),
    [("A100", 80, "a100-80gb"), ("A100", 40, "a100-40gb"), ("RTX4090", 24, "rtx4090"), ("A10", 4, None)],
)
def test_names_of_gpuhunt(name: str, memory_gb: float, gpu: str | None) -> None:
    assert gpu_named(name, memory_gb) == gpu


def test_kinds_are_those_of_the_file() -> None:
    assert {offer.kind for offer in list_offers()} <= set(KINDS)
    assert {offer.gpu for offer in list_offers()} <= {gpu.name for gpu in list_gpus()}


def catalogue_of_gpuhunt(folder: Path) -> str:
    """One instance of each published provider, in the layout that gpuhunt downloads."""
    from gpuhunt._internal.storage import CATALOG_V2_FIELDS

    row = {
        "instance_name": "x", "location": "here", "price": "2.0", "cpu": "8", "memory": "64", "gpu_count": "1",
        "gpu_name": "A100", "gpu_memory": "80", "spot": "True", "gpu_vendor": "nvidia",
    }  # fmt: skip
    for provider in PROVIDERS:
        (folder / provider / "1").mkdir(parents=True)
        (folder / provider / "version").write_text("1", encoding="utf-8")
        lines = (",".join(CATALOG_V2_FIELDS), ",".join(row.get(field, "") for field in CATALOG_V2_FIELDS))
        with zipfile.ZipFile(folder / provider / "1" / "catalog.zip", "w") as file:
            file.writestr(f"{provider}.csv", "\n".join(lines))
    return folder.as_uri()


def test_live_prices_are_those_of_gpuhunt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gpuhunt")
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", catalogue_of_gpuhunt(tmp_path))
    offers = live_offers()
    assert {offer.provider for offer in offers} == set(PROVIDERS)
    assert {(o.gpu, o.gpu_count, o.kind, o.usd_per_hour, o.source) for o in offers} == {
        ("a100-80gb", 1, "spot", 2.0, "gpuhunt")
    }
