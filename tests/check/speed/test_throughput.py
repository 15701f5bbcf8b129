"""Published training speeds: they are read whole, and predicted well by constants that never saw their source."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

import pytest

import peftbench
from peftbench.base.errors import CatalogError
from peftbench.catalog.gpus import list_gpus
from peftbench.check.groups import grouped
from peftbench.check.speed.published_speed import SpeedRecord, read_speeds
from peftbench.check.speed.throughput import (
    IMPOSSIBLE,
    START,
    accuracies,
    fit_constants,
    leave_one_out,
    possible,
    predict,
    reached_share,
)
from peftbench.estimate.time.constants import BAND, HOPPER_ATTENTION_SHARE, OTHER_CARD_BAND, PRIOR

FILE = Path(peftbench.__file__).parents[1] / "results" / "published" / "throughput.csv"


@pytest.fixture(scope="module")
def records() -> tuple[SpeedRecord, ...]:
    return read_speeds(str(FILE), pytest.fail)


def test_every_row_is_of_a_known_card_and_has_its_own_id(records: tuple[SpeedRecord, ...]) -> None:
    assert len(records) > 300
    assert len({record.id for record in records}) == len(records)
    assert len(predict(records)) == len(records)


def test_rows_that_no_card_could_reach_are_rejected(records: tuple[SpeedRecord, ...]) -> None:
    kept = possible(records)
    rejected = [record for record in records if record not in kept]
    assert {record.gpu.name for record in rejected} == {"a6000"}
    assert all(reached_share(record) > IMPOSSIBLE for record in rejected)


def test_the_cards_that_count_as_measured_are_those_of_the_file(records: tuple[SpeedRecord, ...]) -> None:
    cards = {record.gpu.name for record in possible(records)}
    assert cards == {gpu.name for gpu in list_gpus() if gpu.steps_published}


def test_the_constants_of_plan_are_those_that_fit_the_file(records: tuple[SpeedRecord, ...]) -> None:
    fitted = fit_constants(possible(records))
    assert 2 * fitted.pop("first_flash") < 1.2 * PRIOR.attention_share
    assert 2 * fitted.pop("first_flash_hopper") < 1.2 * HOPPER_ATTENTION_SHARE
    for name, value in fitted.items():
        assert getattr(PRIOR, name) == pytest.approx(value, rel=0.05), name


@pytest.mark.slow
def test_sources_left_out_of_the_fit_are_predicted_within_the_promise(records: tuple[SpeedRecord, ...]) -> None:
    rows = leave_one_out(possible(records))
    *sources, overall = accuracies(rows)
    assert overall.median <= 1.12 and overall.p90 <= 1.3
    assert all(source.median <= 1.26 for source in sources)
    assert median(source.p90 for source in sources) <= BAND
    kept = sum(row.low_s <= row.record.step_s <= row.high_s for row in rows)
    assert kept >= 0.9 * len(rows)


def test_constants_decide_the_prediction(records: tuple[SpeedRecord, ...]) -> None:
    some = [record for record in records if record.source == "Qwen"][:3]
    given = {name: getattr(PRIOR, name, 0.4) for name in START}
    halved = {**given, "matmul_share": given["matmul_share"] / 2, "layer_launch_s": given["layer_launch_s"] * 2}
    for slow, usual in zip(predict(some, halved), predict(some, given), strict=True):
        assert slow.predicted_s > 1.5 * usual.predicted_s


def test_a_t4_and_sharding_over_pcie_are_predicted_by_what_they_run(records: tuple[SpeedRecord, ...]) -> None:
    """They are the ones of seven sources with float32 units, slow slots and cards of 24 GB."""
    by_source = grouped(predict(possible(records)), lambda row: row.record.source)
    for source in ("fitcheck", "answer.ai"):
        factors = [row.factor for row in by_source[source]]
        assert len(factors) >= 28 and median(factors) <= 1.2


@pytest.mark.slow
@pytest.mark.parametrize("by", ["device", "generation", "framework"])
def test_cards_and_frameworks_left_out_are_predicted_as_well_as_hoped_of_new_ones(
    records: tuple[SpeedRecord, ...], by: str
) -> None:
    *groups, overall = accuracies(leave_one_out(possible(records), by), by)
    assert overall.median <= 1.12 and overall.p90 <= 1.35 < OTHER_CARD_BAND
    assert all(group.median <= 1.25 for group in groups if group.rows > 2)


def test_a_file_from_before_virtual_tokens_is_read(tmp_path: Path, records: tuple[SpeedRecord, ...]) -> None:
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = [{name: row[name] for name in row if name != "num_virtual_tokens"} for row in csv.DictReader(file)]
    (tmp_path / "throughput_models.json").write_text(FILE.with_name("throughput_models.json").read_text())
    path = tmp_path / "older.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert [record.step_s for record in read_speeds(str(path), pytest.fail)] == [record.step_s for record in records]


def test_what_an_adapter_does_beside_its_parameters_is_priced(records: tuple[SpeedRecord, ...]) -> None:
    """No constant was fitted to these rows: a prompt's tokens, and BOFT's products and blocks, explain them."""
    factors = {row.record.training.method: row.factor for row in predict(records) if row.record.source == "PEFT"}
    assert factors["prompt-tuning"] < 1.25 and factors["boft"] < 1.25


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("h100-sxm", "h100-smx", "unknown GPU"),
        (",2048,", ",many,", "a number is missing"),
        (",MPT-70b,", ",MPT-71b,", "MPT-71b"),
        (",16.27,", ",nan,", "step_s must be a finite number"),
        (",16.27,", ",0,", "step_s must be at least"),
        (",512,64,", ",-512,64,", "must be at least 1"),
        (",2048,", f",{'9' * 401},", "must be at most"),
    ],
)
def test_a_wrong_row_costs_itself_only(tmp_path: Path, old: str, new: str, said: str) -> None:
    head, first, second, *_ = FILE.read_text().splitlines()
    (tmp_path / "throughput_models.json").write_text(FILE.with_name("throughput_models.json").read_text())
    path, told = tmp_path / "speeds.csv", []
    path.write_text(f"{head}\n{first.replace(old, new)}\n{second}\n")
    assert len(read_speeds(str(path), told.append)) == 1
    (note,) = told
    assert f"{path}, line 2: left out" in note and said in note


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text(FILE.read_text().replace("step_s", "steps", 1))
    with pytest.raises(CatalogError, match="no column 'step_s'"):
        read_speeds(str(path), pytest.fail)
