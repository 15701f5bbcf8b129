"""JSON values become dataclasses of exactly the annotated types, or one sentence that names the place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Annotated, Literal

import pytest

from peftbench.base.codec import Count, Share, Within, check_fields, from_json
from peftbench.base.errors import SpecError


class Colour(str, Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    colour: Colour
    inner: Inner | None = None
    pair: tuple[int, str] | None = None
    values: tuple[float, ...] = ()
    options: tuple[tuple[str, int | float | str | bool], ...] = ()
    versions: Mapping[str, Inner] | None = None


WHOLE = Outer("a", Colour.RED, Inner(3), (1, "x"), (1, 2.5), (("r", 8), ("bias", False)), {"torch": Inner(1)})


def test_it_is_the_inverse_of_asdict():
    found = from_json(Outer, json.loads(json.dumps(asdict(WHOLE))), "outer")
    assert found == WHOLE
    assert type(dict(found.options)["bias"]) is bool


def test_what_is_left_out_has_its_default_and_what_is_built_is_kept():
    assert from_json(Outer, {"name": "a", "colour": "red"}, "outer") == Outer("a", Colour.RED)
    assert from_json(Outer, WHOLE, "outer") is WHOLE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": 3}, "outer.name must be text, not 3"),
        ({"colour": "green"}, "outer.colour must be one of red, not 'green'"),
        ({"inner": {"count": True}}, "outer.inner.count must be a whole number, not True"),
        ({"inner": {"count": "64"}}, "outer.inner.count must be a whole number, not '64'"),
        ({"inner": {"count": 1.0}}, "outer.inner.count must be a whole number, not 1.0"),
        ({"inner": {"count": 1, "share": float("nan")}}, "outer.inner.share must be a finite number, not nan"),
        ({"inner": {"share": 1}}, "outer.inner lacks the field 'count'"),
        ({"inner": {"count": 1, "cuont": 1}}, "outer.inner has no field 'cuont'"),
        ({"inner": [1]}, r"outer.inner must be an object, not \[1\]"),
        ({"pair": [1]}, "outer.pair must have 2 values, not 1"),
        ({"values": 3}, "outer.values must be a list, not 3"),
        ({"values": [1, "x"]}, r"outer.values\[1\] must be a finite number, not 'x'"),
        ({"options": [["r", None]]}, r"outer.options\[0\]\[1\] must be .* or true or false, not None"),
        ({"versions": {"torch": 3}}, "outer.versions.torch must be an object"),
    ],
)
def test_anything_else_is_refused_with_its_place(change, says):
    with pytest.raises(SpecError, match=says):
        from_json(Outer, {**asdict(WHOLE), **change}, "outer")


@dataclass(frozen=True)
class Ranged:
    size: Annotated[int, Within(1, 8)] = 1
    bytes: Count = 0
    share: Share = 0.5
    word: Literal["on", "off"] = "on"
    either: str | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 0}, r"size must be at least 1 \(got 0\)"),
        ({"size": 9}, r"size must be at most 8 \(got 9\)"),
        ({"bytes": -1}, r"bytes must not be negative \(got -1\)"),
        ({"bytes": 10**400}, "bytes must be a number of at most 18 digits .got a number of 4"),
        ({"share": float("inf")}, "share must be a finite number, not inf"),
        ({"word": "of"}, "word must be one of on, off, not 'of'"),
        ({"either": 3}, "either must be text or a list, not 3"),
        ({"either": [1, "x"]}, r"either\[1\] must be a whole number, not 'x'"),
        ({"size": object()}, "size must be a whole number, not an object of type object"),
    ],
)
def test_a_dataclass_holds_what_it_declares_however_it_is_made(given, says):
    with pytest.raises(SpecError, match=f"^{says}"):
        Ranged(**given)
    with pytest.raises(SpecError, match=rf"^ranged\.{says}|^{says}"):
        from_json(Ranged, given, "ranged")


def test_a_list_given_by_hand_becomes_the_tuple_that_is_declared():
    assert Ranged(either=[1, 2]).either == (1, 2)  # type: ignore[arg-type]


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(SpecError) as caught:
        from_json(int, ["x" * 1000] * 1000, "it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (tuple[Share, ...], [0.5, math.nan, 1], "x[1] must be a finite number, not nan"),
        (tuple[Share, ...], [math.nan, 0.5], "x[0] must be a finite number, not nan"),
        (tuple[float, ...], [1.0, math.inf, -math.inf], "x[1] must be a finite number, not inf"),
        (tuple[float, ...], [1.0, 10**400], "x[1] must be a number of at most 18 digits"),
        (tuple[float, ...], [1.0, True], "x[1] must be a finite number, not True"),
        (tuple[Count, ...], [1, 2.0], "x[1] must be a whole number, not 2.0"),
        (tuple[Count, ...], [1, -1], "x[1] must not be negative (got -1)"),
        (tuple[Count, ...], [1, None], "x[1] must be a whole number, not None"),
        (tuple[Count | None, ...], [None, -1], "x[1] must not be negative (got -1)"),
        (tuple[Count | None, ...], [None, "1"], "x[1] must be a whole number, not '1'"),
    ],
)
def test_a_wrong_number_in_a_list_is_found(kind, values, says):
    with pytest.raises(SpecError) as error:
        from_json(kind, values, "x")
    assert says in error.value.what


@pytest.mark.parametrize("values", [(), (None,), (None, 3), (0, 5)])
def test_lists_of_numbers_come_back_as_they_are(values):
    assert from_json(tuple[Count | None, ...], list(values), "x") == values
