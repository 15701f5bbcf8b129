"""A suite of variants becomes one comparison; anything that cannot be is refused with its place."""

import pytest

from peftbench.base.errors import PeftbenchError
from peftbench.decide.suite.variants import comparison_of
from peftbench.inputs.comparison import LatencyCase, QualityCase
from peftbench.inputs.recipe import DType
from peftbench.inputs.suite import COMPARING, read_suite, shipped_suites

QUALITY = "about: x\nkind: quality\nmodel: small-llama\ndevice: cpu\n"
LATENCY = "about: x\nkind: latency\nmodel: llama-3.2-1b\ndevice: cpu\n"


def comparison(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    return comparison_of(read_suite(tmp_path / "mine.yaml"))


def test_cases_are_variants(tmp_path):
    case = comparison(tmp_path, QUALITY + "compare: {blocks: 4}\nbase: {r: 8}\ncases:\n  bf16: {weights: bfloat16}\n"
                      "  nf4: {weights: nf4}\n  merged: {weights: nf4, adapter: merged, against: nf4}\n")  # fmt: skip
    assert isinstance(case, QualityCase) and case.blocks == 4
    bf16, nf4, merged = case.variants
    assert bf16.quantization is None and bf16.dtype is DType.BFLOAT16
    assert nf4.quantization.double_quant and nf4.dtype is DType.FLOAT32 and nf4.adapter is None
    assert merged.adapter.r == 8 and merged.against == "nf4"


def test_a_sweep_multiplies(tmp_path):
    case = comparison(tmp_path, QUALITY + "cases: {nf4: {weights: nf4}, fp4: {weights: fp4}}\n"
                      "sweep: {blocksize: [64, 128], double_quant: [true, false]}\n")  # fmt: skip
    assert len(case.variants) == 8
    assert case.variants[0].name == "nf4 blocksize=64 double_quant=True"


def test_a_latency_suite_has_the_config(tmp_path):
    case = comparison(tmp_path, LATENCY + "compare: {rounds: 7}\ncases: {base: {weights: bfloat16}}\n")
    assert isinstance(case, LatencyCase) and case.rounds == 7 and '"hidden_size": 2048' in case.config


SHIPPED = {name: read_suite(path) for name, path in shipped_suites().items()}


@pytest.mark.parametrize("name", [name for name, suite in SHIPPED.items() if suite.kind in COMPARING])
def test_shipped_suites_can_be_compared(name):
    assert len(comparison_of(SHIPPED[name]).variants) >= 3
    assert SHIPPED[name].about


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (QUALITY + "cases: {a: {weights: nf5}}", "weights cannot be 'nf5'"),
        (QUALITY + "cases: {a: {}}", "weights cannot be None"),
        (QUALITY + "cases: {a: {weights: nf4, blksize: 64}}", "blocksize"),
        (QUALITY + "cases: {a: {weights: nf4, blocksize: 48}}", "a block size of 48"),
        (QUALITY + "cases: {a: {weights: bfloat16, blocksize: 64}}", "no blocks"),
        (QUALITY + "cases: {a: {weights: nf4, adapter: melted}}", "melted"),
        (QUALITY + "cases: {a: {weights: nf4, against: b}}", "compared with 'b'"),
        (QUALITY + "cases: {reference: {weights: nf4}}", "reference"),
        (QUALITY + "cases: {a: {weights: bfloat16, adapter: requantized}}", "only quantized"),
        (QUALITY + "cases: {a: {weights: nf4, adapter: merged, adapters: 3}}", "3 adapters"),
        (QUALITY + "cases: {a: {weights: nf4, adapters: many}}", "must be a whole number"),
        (QUALITY + "compare: {block: 4}\ncases: {a: {weights: nf4}}", "blocks"),
        (QUALITY + "compare: {blocks: 1}\ncases: {a: {weights: nf4}}", "at least 2"),
        (QUALITY + "compare: {blocks: lots}\ncases: {a: {weights: nf4}}", "must be a whole number"),
        (QUALITY + "compare: {by_layer: b}\ncases: {a: {weights: nf4}}", "by_layer"),
        (LATENCY + "compare: {interval: 3}\ncases: {a: {weights: nf4}}", "interval"),
        (LATENCY.replace("llama-3.2-1b", "lama-3.2-1b") + "cases: {a: {weights: nf4}}", "lama-3.2-1b"),
        (QUALITY + "steps: 3\ncases: {a: {weights: nf4}}", "has no steps"),
        (LATENCY + "largest: batch_size\ncases: {a: {weights: nf4}}", "has no largest"),
        (LATENCY + "cases: {a: {weights: nf4, adapter: dequantized}}", "dequantized is not measured"),
        ("about: x\nmodel: llama-3.2-1b\ncompare: {rounds: 3}\ncases: {a: {}}", "kind quality or latency"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, text, words):
    with pytest.raises(PeftbenchError) as error:
        comparison(tmp_path, text)
    assert words in f"{error.value.what} {error.value.hint}"
