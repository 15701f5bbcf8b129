"""What the name of a quantized copy says of how it is stored, as the quantization_config of its config.json would."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from peftbench.catalog.checkpoints.entry import CatalogModel

_NF4 = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
}  # fmt: skip
_GROUPS = {"group_size": 128}


class Copy(NamedTuple):
    """One kind of copy: its scheme in words, and its quantization_config as far as the name tells."""

    scheme: str
    config: Mapping[str, Any] = {}
    """Empty for a copy that transformers does not load as it is stored."""


_ENDINGS: tuple[tuple[str, Copy], ...] = (
    (r"-unsloth-bnb-4bit", Copy("bitsandbytes NF4, some linear layers in 16 bits", _NF4)),
    (r"-bnb-4bit", Copy("bitsandbytes NF4", _NF4)),
    (r"-awq(-int4)?", Copy("AWQ int4", {"quant_method": "awq", "bits": 4, **_GROUPS, "zero_point": True})),
    (r"-gptq(-int4|-4bit)?", Copy("GPTQ int4", {"quant_method": "gptq", "bits": 4, **_GROUPS})),
    (r"-gptq-int8", Copy("GPTQ int8", {"quant_method": "gptq", "bits": 8, **_GROUPS})),
    (r"-fp8-(dynamic|block)", Copy("compressed-tensors float8", {"quant_method": "compressed-tensors", "format": "float-quantized"})),  # noqa: E501
    (r"-fp8", Copy("float8", {"quant_method": "fp8"})),
    (r"-nvfp4(-fast)?", Copy("compressed-tensors NVFP4", {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"})),  # noqa: E501
    (r"-w4a16(-ct)?", Copy("compressed-tensors int4", {"quant_method": "compressed-tensors", "format": "pack-quantized"})),  # noqa: E501
    (r"-gguf", Copy("GGUF", {"quant_method": "gguf"})),
    (r"-mlx(-[\w.]+)?", Copy("MLX, for Apple's chips")),
)  # fmt: skip
"""By the end of a lower-case name, the longer ending first."""


def copy_of(name: str) -> Copy | None:
    """How a repository of that name is stored; None where the name does not say that it is quantized."""
    return next((copy for ending, copy in _ENDINGS if re.search(f"{ending}$", name.lower())), None)


def quantized_config(model: CatalogModel, name: str) -> tuple[Mapping[str, Any], str]:
    """The config.json of a quantized copy as far as its name tells, and a sentence that says which model it is."""
    copy = copy_of(name)
    assert copy is not None, name  # the catalogue keeps no others as quantized
    config = {**model.config, "quantization_config": copy.config} if copy.config else model.config
    return config, f"{name} is {model.id} stored as {copy.scheme}."
