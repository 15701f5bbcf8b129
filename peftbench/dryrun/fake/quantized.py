"""Weights that bitsandbytes stores, as fake tensors: libraries know them by the names of their classes."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensor


def is_quantized(tensor: object) -> bool:
    """Whether bitsandbytes stores this weight."""
    return type(tensor).__name__ in ("Params4bit", "Int8Params")


class _Quantized(FakeTensor):
    """A fake weight of bitsandbytes': its own classes cannot hold a fake tensor, and PEFT asks for their names."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied: Any = nn.Parameter(self.data.clone(), requires_grad=False)
        copied.__class__ = type(self)
        vars(copied).update({key: value for key, value in vars(self).items() if key not in vars(copied)})
        return copied


class Params4bit(_Quantized):
    """With a quant_state."""


class Int8Params(_Quantized):
    """With CB and SCB."""
