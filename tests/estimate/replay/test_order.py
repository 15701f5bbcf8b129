"""In which order tensors come to the card."""

from __future__ import annotations

from peftbench.estimate.parts.tensors import TensorGroup
from peftbench.estimate.replay.load import tensors_in_order
from peftbench.inputs.recipe import DType


def order(*groups: tuple[str, int]) -> list[str]:
    made = tuple(TensorGroup(name, (2,), count, DType.BFLOAT16) for name, count in groups)
    return [group.module for group, _ in tensors_in_order(made)]


def test_layers_follow_each_other_and_the_head_comes_last() -> None:
    assert order(("embed", 1), ("q", 2), ("v", 2), ("head", 1)) == ["embed", "q", "v", "q", "v", "head"]


def test_a_module_of_one_layer_stands_in_the_first() -> None:
    assert order(("q", 2), ("v", 1), ("o", 2)) == ["q", "v", "o", "q", "o"]


def test_tensors_that_stand_alone_keep_their_order() -> None:
    assert order(("encoder", 1), ("prompt", 1)) == ["encoder", "prompt"]
    assert order() == []
