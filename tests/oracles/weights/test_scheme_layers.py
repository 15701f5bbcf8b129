"""Rows of schemes against the layers of the libraries: every tensor of a layer of 512 × 1,024, to the byte.

Layers of transformers are always there; those of torchao, Quanto, HQQ and AQLM where the library is installed.
"""

from __future__ import annotations

from typing import Any

import pytest

from peftbench.inputs.recipe import QuantizationSpec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
OUT, IN = 512, 1024


def expected(quant_type: str, **options: Any) -> int:
    """Codes and constants of the matrix."""
    spec = QuantizationSpec(quant_type=quant_type, **options)
    return spec.code_bytes(OUT * IN) + spec.scheme.constants_bytes(OUT, IN, spec)


def held(tensor: Any) -> int:
    """Bytes of a tensor, of a subclass those of its parts."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.nbytes)
    return sum(held(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])


def layer_bytes(layer: Any) -> int:
    """Bytes of a layer's parameters and buffers."""
    return sum(map(held, (*layer.parameters(), *layer.buffers())))


def plain() -> Any:
    """A linear layer in bfloat16."""
    return torch.nn.Linear(IN, OUT, bias=False, dtype=torch.bfloat16)


@pytest.mark.parametrize(("blocksize", "block"), [(128, (128, 128)), (-1, None)])
def test_fp8(blocksize: int, block: tuple[int, int] | None) -> None:
    from transformers.integrations.finegrained_fp8 import FP8Linear

    with torch.device("meta"):
        assert layer_bytes(FP8Linear(IN, OUT, block_size=block)) == expected("fp8", blocksize=blocksize)


def test_fbgemm_eetq_bitnet() -> None:
    from transformers.integrations.bitnet import BitLinear
    from transformers.integrations.eetq import EetqLinear
    from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear

    with torch.device("meta"):
        assert layer_bytes(FbgemmFp8Linear(IN, OUT, False)) == expected("fbgemm-fp8")
        assert layer_bytes(EetqLinear(IN, OUT)) == expected("eetq")
        assert layer_bytes(BitLinear(IN, OUT, False, dtype=torch.bfloat16)) == expected("bitnet")


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_higgs(bits: int) -> None:
    from transformers.integrations.higgs import HiggsLinear

    layer = HiggsLinear(IN, OUT, bits, bias=False, dtype=torch.bfloat16, device="meta")
    assert layer_bytes(layer) == expected("higgs", bits=bits)


@pytest.mark.parametrize(("books", "bits", "quant_type"), [(1, 16, "aqlm-1x16"), (2, 8, "aqlm-2x8")])
def test_aqlm(books: int, bits: int, quant_type: str) -> None:
    aqlm = pytest.importorskip("aqlm")
    layer = aqlm.QuantizedLinear(IN, OUT, 8, 1, books, bits, bias=False, device="meta", dtype=torch.float16)
    assert layer_bytes(layer) == expected(quant_type)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_hqq(bits: int) -> None:
    hqq = pytest.importorskip("hqq.core.quantize")
    config = hqq.BaseQuantizeConfig(nbits=bits, group_size=64, axis=1)
    layer = hqq.HQQLinear(plain().float(), config, compute_dtype=torch.bfloat16, device="cpu")
    constants = sum(value.nbytes for value in layer.meta.values() if isinstance(value, torch.Tensor))
    assert layer.W_q.nbytes + constants == expected("hqq", bits=bits)
    x = torch.randn(1, 3, IN, dtype=torch.bfloat16, requires_grad=True)
    assert [tuple(tensor.shape) for tensor in saved_by(layer, x)] == [(1, 3, IN)]


@pytest.mark.parametrize("name", ["int8", "float8"])
def test_torchao(name: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    layer = plain()
    quantization.quantize_(layer, getattr(quantization, f"{name.capitalize()}WeightOnlyConfig")())
    assert layer_bytes(layer) == expected(f"torchao-{name}")
    saved = saved_by(layer, torch.randn(1, 3, IN, dtype=torch.bfloat16, requires_grad=True))
    assert (IN, OUT) in [tuple(tensor.shape) for tensor in saved if tensor.dtype is torch.bfloat16]


@pytest.mark.parametrize("name", ["int8", "float8", "int4", "int2"])
def test_quanto(name: str) -> None:
    quanto = pytest.importorskip("optimum.quanto")
    model = torch.nn.Sequential(plain())
    quanto.quantize(model, weights=getattr(quanto, f"q{name}"))
    quanto.freeze(model)
    assert layer_bytes(model[0]) == expected(f"quanto-{name}")
    saved = saved_by(model[0], torch.randn(1, 3, IN, dtype=torch.bfloat16, requires_grad=True))
    assert tuple(saved[0].shape) == (1, 3, IN)


def saved_by(layer: Any, x: Any) -> list[Any]:
    """What a forward pass saves for backward."""
    saved: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        layer(x * 1)
    return saved
