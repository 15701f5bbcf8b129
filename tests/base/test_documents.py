"""YAML and JSON that people write: merge keys are no duplicates, duplicates are refused wherever they are."""

import pytest

from peftbench.base.documents import parse_json, parse_yaml
from peftbench.base.errors import CatalogError


def read(text):
    return parse_yaml(text, "mine.yaml", "Correct it there.")


def test_a_merge_key_may_be_overridden_at_every_level():
    text = "a: &a {x: 1, z: 0}\nb: &b\n  <<: *a\n  x: 2\nc:\n  <<: *b\n  x: 3\nd: {<<: *b}\n"
    assert read(text) == {"a": {"x": 1, "z": 0}, "b": {"x": 2, "z": 0}, "c": {"x": 3, "z": 0}, "d": {"x": 2, "z": 0}}


def test_merging_a_mapping_before_it_is_read_is_no_duplicate():
    text = "c: {<<: &b {<<: &a {x: 1}, x: 2}, x: 3}\nd: *b\n"
    assert read(text) == {"c": {"x": 3}, "d": {"x": 2}}


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3\n", "x:\n  - {b: 1}\n  - {a: 1, a: 1}\n", "a: &a {b: 1, b: 2}\nc: {<<: *a}"]
)
def test_a_key_that_comes_twice_is_refused_with_its_line(text):
    with pytest.raises(CatalogError, match=r"mine\.yaml, line [13]: the key '[ab]' comes twice"):
        read(text)


def test_json_is_refused_alike():
    with pytest.raises(CatalogError, match=r"mine\.json: the key 'r' comes twice"):
        parse_json('{"a": {"r": 1, "s": 2, "r": 1}}', "mine.json", "")
    assert parse_json('{"a": {"r": 1}, "b": {"r": 1}}', "", "") == {"a": {"r": 1}, "b": {"r": 1}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!bool foo", "line 1: .* 'foo' is no bool"),
        ("b: 1\na: !!int ''", "line 2: .* '' is no int"),
        ("a: !!float x", "line 1"),
        ("a: !!timestamp x", "line 1"),
        (f"a: {'9' * 4400}", "line 1"),
        ("a: &x\n  b: *x", "nested too deep, or holds itself"),
        ("- &x [*x]", "nested too deep, or holds itself"),
        ("x:\n  a: 2020-01-01", r"x.a \(line 2\) must be a plain value, not an object of type date"),
        ("a: .inf", r"a \(line 1\) must be a finite number"),
        ("a: !!set {b}", "a .* must be a plain value"),
        ("? 2020-01-01\n: 3", "has a name that is no text"),
        ("? [1, 2]\n: 3", "found unhashable key"),
        ("a: 1\n---\nb: 2", "not YAML of one document"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("a: \x1b", "not YAML"),
    ],
)
def test_whatever_pyyaml_stumbles_over_is_one_sentence_with_a_line(text, says):
    with pytest.raises(CatalogError, match=r"^mine\.yaml.*" + says):
        read(text)


def test_aliases_count_as_often_as_they_are_used():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    with pytest.raises(CatalogError, match="holds more than 300,000 values, those behind aliases included"):
        read(bomb)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1', "line 1, column 8: this is not JSON"),
        ('{"a": NaN}', "a must be a finite number, not nan"),
        ('{"a": [1, 1e999]}', r"a\[1\] must be a finite number, not inf"),
        ('{"a": ' + "9" * 400 + "}", "a must be a number of at most 18 digits"),
        ('{"a": ' + "9" * 4400 + "}", "it has a number of thousands of digits"),
        ("[" * 100_000, "nested too deep"),
        ("[" * 200 + "]" * 200, "nested too deep"),
        ('{"a": "\\ud800"}', "a must be text"),
    ],
)
def test_json_is_as_strict(text, says):
    with pytest.raises(CatalogError, match="^mine.json.*" + says):
        parse_json(text, "mine.json", "")


def test_json_of_other_programs_may_hold_infinities():
    assert parse_json('{"limit": [0.0, Infinity]}', "", "", object) == {"limit": [0.0, float("inf")]}
