"""The floating-point types a recipe can name."""

from __future__ import annotations

from enum import Enum


class DType(str, Enum):
    """A torch dtype by its name in `config.json` and `TrainingArguments`."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    __str__ = str.__str__

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return 4 if self is DType.FLOAT32 else 2
