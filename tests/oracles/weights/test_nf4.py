"""NF4 as the QLoRA paper (Dettmers et al. 2023, section 3 and appendix E) defines it, against bitsandbytes."""

from statistics import NormalDist

import pytest

torch = pytest.importorskip("torch")
bnb = pytest.importorskip("bitsandbytes")

from peftbench.inputs.recipe import DType, QuantizationSpec  # noqa: E402
from peftbench.measure.child.quantize import bits_per_parameter, copy_of  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

OUTERMOST = round((31 / 32 + 29 / 30) / 2, 7)
"""The quantile of the largest code: halfway between those of 16 and of 15 values of equal probability. The authors'
own has 7 digits; with more, one code would be 2e-7 off."""
ABSMAX_BLOCK = 256
"""Block constants that share a constant of their own under double quantization."""


def nf4_codes():
    """Quantiles of N(0, 1), 7 below zero, zero itself and 8 above, scaled to [-1, 1]."""

    def quantiles(number):
        step = (OUTERMOST - 0.5) / number
        return [NormalDist().inv_cdf(OUTERMOST - step * place) for place in range(number)]

    values = sorted([*(-q for q in quantiles(7)), 0.0, *quantiles(8)])
    return torch.tensor(values, dtype=torch.float64) / values[-1]


def quantized(weights, blocksize, codes, rounding=1e-6):
    """Nearest code of every weight over its block's largest magnitude, that magnitude, and which are midpoint ties."""
    blocks = weights.reshape(-1, blocksize)
    absmax = blocks.abs().amax(1)
    scaled = (blocks / absmax[:, None]).double()
    distance = (scaled[..., None] - codes.double()).abs()
    nearest, second = distance.topk(2, largest=False).values.unbind(-1)
    return distance.argmin(-1).flatten(), absmax, (second - nearest < rounding).flatten()


def unpacked(codes):
    """Two to a byte, the first in the upper half."""
    return torch.stack([codes.flatten() >> 4, codes.flatten() & 15], 1).flatten().long()


@pytest.fixture(scope="module")
def weights():
    return torch.randn(512, 1024, generator=torch.Generator().manual_seed(0)) * 0.02


def test_the_codebook_is_that_of_the_paper():
    theirs = bnb.functional.get_4bit_type("nf4", device="cpu").double()
    assert torch.allclose(theirs, nf4_codes(), rtol=0, atol=1.2e-7)  # float32 has 24 bits
    assert theirs[7] == 0 and theirs[0] == -1 and theirs[15] == 1


@pytest.mark.parametrize("blocksize", [32, 64, 128, 256, pytest.param(4096, marks=pytest.mark.slow)])  # it compiles
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_indices_constants_and_weights(weights, blocksize, dtype):
    given = weights.to(dtype)
    packed, state = bnb.functional.quantize_4bit(
        given, blocksize=blocksize, quant_type="nf4", compress_statistics=False
    )
    indices, absmax, ties = quantized(given.float(), blocksize, state.code)
    assert torch.equal(absmax, state.absmax)
    differ = unpacked(packed) != indices
    assert not (differ & ~ties).any() and differ.sum() <= 4
    written = state.code[unpacked(packed)].view(-1, blocksize) * state.absmax[:, None]
    assert torch.equal(written.view(given.shape).to(dtype), bnb.functional.dequantize_4bit(packed, state))


@pytest.mark.parametrize("blocksize", [32, 64, 128])
def test_double_quantization(weights, blocksize):
    """Block constants, less their mean, in 8 bit: the nearest code of their own block of 256."""
    _, plain = bnb.functional.quantize_4bit(weights, blocksize=blocksize, quant_type="nf4", compress_statistics=False)
    packed, state = bnb.functional.quantize_4bit(
        weights, blocksize=blocksize, quant_type="nf4", compress_statistics=True
    )
    assert state.state2.blocksize == ABSMAX_BLOCK and state.absmax.dtype is torch.uint8
    assert torch.allclose(state.offset, plain.absmax.mean(), rtol=1e-6)
    rounding = 2 / 65536  # of distances: what the kernel of a CPU resolves, seen from where it differs
    indices, absmax, ties = quantized(plain.absmax - state.offset, ABSMAX_BLOCK, state.state2.code, rounding)
    assert torch.equal(absmax, state.state2.absmax)
    differ = state.absmax.long() != indices
    assert not (differ & ~ties).any() and differ.sum() <= 0.002 * len(indices)
    codes = state.state2.code[state.absmax.long()].view(-1, ABSMAX_BLOCK)
    constants = (codes * state.state2.absmax[:, None]).flatten() + state.offset
    written = state.code[unpacked(packed)].view(-1, blocksize) * constants[:, None]
    assert torch.equal(written.view(weights.shape), bnb.functional.dequantize_4bit(packed, state))


class OneMatrix(torch.nn.Module):
    """Large enough for the tables of codes not to count."""

    all_tied_weights_keys = {}  # noqa: RUF012 (transformers' own)

    def __init__(self):
        super().__init__()
        self.matrix = torch.nn.Linear(2048, 2048, bias=False)
        self.last = torch.nn.LayerNorm(8)

    def get_output_embeddings(self):
        return None

    def tie_weights(self):
        return None


@pytest.mark.parametrize(
    ("blocksize", "double_quant", "bits"),
    [(64, False, 4.5), (64, True, 4.127), (128, False, 4.25), (128, True, 4.063), (256, True, 4.032)],
)
def test_bits_per_parameter(blocksize, double_quant, bits):
    """The paper's 0.5 and 0.127 bit for constants in blocks of 64, from the tensors of a real layer."""
    spec = QuantizationSpec(blocksize=blocksize, double_quant=double_quant, compute_dtype=DType.FLOAT32)
    found = bits_per_parameter(copy_of(OneMatrix(), DType.FLOAT32, spec))
    tables = (16 * 4 + double_quant * (256 * 4 + 4)) * 8 / 2048**2
    constants = 8 / blocksize + 32 / (blocksize * ABSMAX_BLOCK) if double_quant else 32 / blocksize
    assert found == pytest.approx(4 + constants + tables, abs=1e-9)
    assert found == pytest.approx(bits, abs=0.003)
