"""Read single keys of a config.json with type and range checked, so that a mistake is one clear message."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.base.errors import SpecError

LIMITS = {
    "num_hidden_layers": 1000,
    "hidden_size": 1 << 18,
    "vocab_size": 1 << 24,
    "intermediate_size": 1 << 22,
    "moe_intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 14,
    "num_experts": 1 << 14,
    "num_experts_per_tok": 1 << 14,
}
"""Far beyond any model that exists: a larger value is a typing error, not a model."""

_ANY_WHOLE = 1 << 40

ACTIVATIONS = frozenset((
    "gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh",
    "gelu_python_tanh", "gelu_accurate", "hardswish", "laplace", "leaky_relu", "linear", "mish",
    "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh",
    "xielu",
))  # fmt: skip
"""The names of transformers.activations.ACT2FN; `prelu` has weights of its own and is left out."""


class ConfigKeys:
    """The values of one config.json under the names of ModelSpec.

    `spelled` maps a name to the keys under which this architecture writes it: {"hidden_size": ("n_embd",)}.
    A key that is null counts as omitted, as it does in most of transformers' configuration classes.
    """

    def __init__(
        self, config: Mapping[str, object], name: str, spelled: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.config = config
        self.name = name
        self.spelled = spelled or {}

    def spellings(self, key: str) -> tuple[str, ...]:
        """The keys of config.json that may hold `key`, the usual one first."""
        return self.spelled.get(key, (key,))

    def has(self, key: str) -> bool:
        """Whether the config writes this key, even as null."""
        return any(spelling in self.config for spelling in self.spellings(key))

    def value(self, key: str) -> object:
        """The raw value, or None when omitted."""
        return next((self.config[s] for s in self.spellings(key) if self.config.get(s) is not None), None)

    def refuse(self, key: str, value: object, wanted: str) -> SpecError:
        """The error for a value that cannot be used."""
        return SpecError(
            f"{self.name}: {self.spellings(key)[0]} is {_shown(value)}, but must be {wanted}.",
            "Correct this key in the config.json, or download the file again.",
        )

    def missing(self, key: str) -> SpecError:
        """The error for a key without which the size of the model is unknown."""
        null = " (it is null)" if self.has(key) else ""
        return SpecError(
            f"{self.name}: the config.json has no {' or '.join(self.spellings(key))}{null}.",
            "Add the key, or download the complete config.json of the model.",
        )

    def whole(self, key: str, default: int | None = None, low: int = 1) -> int:
        """A whole number; without a default the key is required."""
        number = self.optional_whole(key, low)
        if number is not None:
            return number
        if default is None:
            raise self.missing(key)
        return default

    def optional_whole(self, key: str, low: int = 1) -> int | None:
        """A whole number within LIMITS, or None when omitted."""
        value, high = self.value(key), LIMITS.get(key, _ANY_WHOLE)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, value, f"a whole number from {low:,} to {high:,}")
        return value

    def real(self, key: str, default: float, high: float = 1.0) -> float:
        """A number from 0 to `high`, such as a dropout."""
        value = self.optional_real(key, high)
        return default if value is None else value

    def optional_real(self, key: str, high: float) -> float | None:
        """A number from 0 to `high`, or None when omitted."""
        value = self.value(key)
        if value is None:
            return None
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= high:  # type: ignore[operator]  # NaN compares false
            raise self.refuse(key, value, f"a number from 0 to {high:g}")
        return float(value)  # type: ignore[arg-type]

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def activation(self, key: str, default: str) -> str:
        """The name of an activation function."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.refuse(key, value, "an activation of transformers, such as silu or gelu_new")
        return value

    def whole_list(self, key: str) -> tuple[int, ...] | None:
        """A list of whole numbers, or None when omitted."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or any(type(v) is not int or v < 0 for v in value):
            raise self.refuse(key, value, "a list of whole numbers")
        return tuple(value)

    def layer_types(self, layers: int, key: str = "layer_types") -> tuple[str, ...] | None:
        """The kind of each layer's attention, or of what this key names, or None when omitted."""
        value = self.value(key)
        if value is None:
            return None
        if (
            not isinstance(value, (list, tuple))
            or len(value) != layers
            or not all(isinstance(v, str) for v in value)
        ):
            raise self.refuse(key, value, f"a list of {layers} names, one a layer")
        return tuple(value)


def _shown(value: object) -> str:
    """The value as Python writes it, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
