"""JSON values become dataclasses of exactly the annotated types, or one sentence that names the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum

import pytest

from peftbench.base.codec import from_json
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
        ({"options": [["r", None]]}, r"outer.options\[0\]\[1\] must be true or false, not None"),
        ({"versions": {"torch": 3}}, "outer.versions.torch must be an object"),
    ],
)
def test_anything_else_is_refused_with_its_place(change, says):
    with pytest.raises(SpecError, match=says):
        from_json(Outer, {**asdict(WHOLE), **change}, "outer")
