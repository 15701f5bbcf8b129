"""YAML and JSON that people write: merge keys are no duplicates, duplicates are refused wherever they are."""

import pytest

from peftbench.base.documents import Twice, parse_json, parse_yaml
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
    with pytest.raises(Twice, match="the key 'r' comes twice"):
        parse_json('{"a": {"r": 1, "s": 2, "r": 1}}')
    assert parse_json('{"a": {"r": 1}, "b": {"r": 1}}') == {"a": {"r": 1}, "b": {"r": 1}}
