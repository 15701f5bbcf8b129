"""A whole comparison on a model that is read from a folder: what is sent, what it says, and that nothing leaks."""

import copy
import math

import pytest
import torch
from runs.tiny_llama import TEXT, save_tiny_llama, tiny_llama

from peftbench.base.codec import from_json
from peftbench.base.errors import MeasureError
from peftbench.base.paired import mean_difference
from peftbench.inputs.comparison import REFERENCE, QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec
from peftbench.measure.child.quantize import copy_of
from peftbench.measure.quality.adapter import build_variant, train_adapter
from peftbench.measure.quality.compare import WITH_ADAPTER, compare_quality, layer_error, layer_errors
from peftbench.measure.quality.scores import Scores, logits_of
from peftbench.records.comparison import QualityResult

LORA = AdapterSpec(r=4, target_modules=("all-linear",))
NF4 = QuantizationSpec(compute_dtype=DType.FLOAT32)
FP4 = QuantizationSpec(quant_type="fp4", compute_dtype=DType.FLOAT32)
INT8 = QuantizationSpec(quant_type="int8")


def adapted(name, route, against="dynamic", **more):
    return Variant(name=name, quantization=NF4, route=route, adapter=LORA, against=against, **more)


VARIANTS = (
    adapted("merged", "merged"),  # before its standard
    Variant(name="bf16", dtype=DType.BFLOAT16),
    Variant(name="fp16", dtype=DType.FLOAT16),
    Variant(name="int8", quantization=INT8),
    Variant(name="nf4", quantization=NF4),
    Variant(name="nf4-32", quantization=QuantizationSpec(blocksize=32, compute_dtype=DType.FLOAT32)),
    Variant(name="nf4-256", quantization=QuantizationSpec(blocksize=256, compute_dtype=DType.FLOAT32)),
    Variant(name="fp4", quantization=FP4),
    adapted("dynamic", "dynamic", REFERENCE),
    adapted("dequantized", "dequantized"),
    adapted("requantized", "requantized", REFERENCE),
    adapted("round-trips", "round-trips", round_trips=2),
    Variant(name="plain-merged", route="merged", adapter=LORA),
)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    return QualityCase(
        id="tiny", model=str(folder), text=str(folder / "text.txt"), blocks=6, block_tokens=32, variants=VARIANTS,
        adapter_steps=8, by_layer="nf4",
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(case):
    """Results by variant, events, and the facts."""
    events = []
    facts = compare_quality(case, events.append)
    results = [from_json(QualityResult, event["result"], "result") for event in events if "result" in event]
    return {result.variant: result for result in results}, events, facts


def kl(ran, variant):
    return sum(ran[0][variant].kl) / 6


def test_every_variant_has_a_result_with_a_figure_for_every_block(ran):
    results, events, _ = ran
    assert list(results)[:2] == [REFERENCE, WITH_ADAPTER]
    assert set(results) == {REFERENCE, WITH_ADAPTER, *(variant.name for variant in VARIANTS)}
    for name, result in results.items():
        standard = name in (REFERENCE, WITH_ADAPTER)
        assert len(result.nll) == 6 and len(result.kl) == len(result.top1) == (0 if standard else 6)
        assert (result.logit_rmse is None) is standard and result.seconds > 0
    shares = [event["progress"] for event in events if "progress" in event]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


def test_effects_have_the_order_that_the_literature_gives_them(ran):
    """8 bit and 16 bit far below 4 bit; small blocks below large ones; NF4 below FP4."""
    for less, more in (("fp16", "bf16"), ("bf16", "nf4"), ("int8", "nf4"), ("nf4-32", "nf4-256"), ("nf4", "fp4")):
        assert mean_difference(ran[0][more].kl, ran[0][less].kl).low > 0, (less, more)
    assert kl(ran, "nf4") > 20 * kl(ran, "bf16")


def test_what_merging_costs(ran):
    """Nothing where the weights are plain; a quantization where they are quantized again; more with every round."""
    assert kl(ran, "plain-merged") < 1e-6 and kl(ran, "dequantized") < 1e-6
    assert min(kl(ran, name) for name in ("merged", "requantized", "round-trips", "dynamic")) > 1e-3
    assert ran[0]["plain-merged"].logit_max < 1e-3 < ran[0]["merged"].logit_max


def test_weights_have_errors_where_there_is_no_adapter(ran):
    errors = {name: {e.name: e.relative_rmse for e in result.layers} for name, result in ran[0].items()}
    assert {name for name, found in errors.items() if found} == {v.name for v in VARIANTS if v.adapter is None}
    assert len(errors["nf4"]) == 14 and "model.layers.1.mlp.down_proj" in errors["nf4"]
    for name, low, high in (("bf16", 0.001, 0.003), ("int8", 0.004, 0.012), ("nf4", 0.085, 0.1), ("fp4", 0.11, 0.14)):
        assert all(low < error < high for error in errors[name].values()), name


def test_what_is_stored(ran):
    """Heads and embeddings stay: 320 × 256 of all parameters, and the norms."""
    linear, rest = 2 * (4 * 256 * 256 + 3 * 256 * 512), 320 * 256 + 5 * 256
    for name in ("nf4", "dynamic", "merged", "int8"):
        assert ran[0][name].share_16_bit == pytest.approx(rest / (linear + rest))
    assert ran[0]["bf16"].share_16_bit is None and ran[0]["dequantized"].bits_per_parameter is None
    assert 8 < ran[0]["int8"].bits_per_parameter < 8.2 and 4.1 < ran[0]["nf4"].bits_per_parameter < 4.3


def test_layers_are_quantized_one_at_a_time(ran):
    found = dict(ran[0]["nf4"].kl_by_layer)
    assert list(found) == ["0", "1"] and all(0 < each < 2 * kl(ran, "nf4") for each in found.values())
    assert "first 2 blocks" in ran[0]["nf4"].notes[0]
    assert all(not result.kl_by_layer for name, result in ran[0].items() if name != "nf4")


def test_the_facts_say_what_was_compared_on_what(ran, case):
    facts = ran[2]
    assert (facts["model"], facts["model_source"], facts["reference_dtype"]) == (case.model, "a folder", "float32")
    assert facts["tokens"] == 6 * 32 and facts["parameters"] == tiny_llama().num_parameters()
    ((first, last),) = facts["adapter_losses"]
    assert last < first


# ── nothing changes the reference ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_no_variant_changes_the_reference(variant):
    """PEFT merges in place: a copy that shared its weights would change the standard of all that follow."""
    reference = tiny_llama()
    before = copy.deepcopy(reference.state_dict())
    adapter = train_adapter(reference, LORA, torch.arange(300), 2, 32, 0, lambda: None) if variant.adapter else None
    logits_of(build_variant(reference, variant, adapter), torch.arange(32))
    after = reference.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_every_variant_has_the_weights_that_were_trained():
    reference = tiny_llama()
    adapter = train_adapter(reference, LORA, torch.arange(300), 6, 32, 0, lambda: None)
    unquantized = Variant(name="plain", route="dynamic", adapter=LORA)
    tokens = torch.arange(32)
    exact, plain = logits_of(build_variant(reference, unquantized, adapter), tokens), logits_of(reference, tokens)
    nf4 = logits_of(build_variant(reference, adapted("nf4", "dynamic", REFERENCE), adapter), tokens)
    bare = logits_of(copy_of(reference, DType.FLOAT32, NF4), tokens)
    moved, wanted = (nf4 - bare).flatten(), (exact - plain).flatten()
    assert torch.cosine_similarity(moved, wanted, dim=0) > 0.9
    assert wanted.norm() > 0.01 * plain.norm()


# ── arithmetic ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_by_hand():
    """Two tokens to predict out of two: p = (1/2, 1/2) against q = (1/4, 3/4)."""
    standard, logits = torch.zeros(2, 2), torch.tensor([[0.0, math.log(3)]] * 2)
    found = Scores()
    found.add(logits, torch.tensor([0, 1, 0]), standard)
    assert found.nll == pytest.approx([-(math.log(3 / 4) + math.log(1 / 4)) / 2])
    assert found.kl == pytest.approx([math.log(2) - math.log(3) / 2])
    assert found.top1 == [0.0] and found.largest == pytest.approx(math.log(3))
    assert found.relative_rmse is None  # a standard without any spread


def test_logit_errors_are_relative_to_the_standards_spread():
    standard = torch.tensor([[1.0, -1.0], [3.0, -3.0]])
    found = Scores()
    found.add(standard + torch.tensor([0.5, -0.5]), torch.tensor([0, 0, 0]), standard)
    assert found.relative_rmse == pytest.approx(0.5 / math.sqrt(5))
    assert found.top1 == [1.0] and found.nll[0] < found.kl[0] + 0.2


def test_a_weight_error_by_hand():
    found = layer_error("m", torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0]))
    assert found.relative_rmse == pytest.approx(math.sqrt(1 / 34))
    assert found.sqnr_db == pytest.approx(10 * math.log10(34))


def test_weights_that_are_equal_have_no_error():
    reference = tiny_llama(layers=1)
    assert {error.relative_rmse for error in layer_errors(copy_of(reference, None), reference)} == {0.0}


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_that_is_too_short(case, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text(TEXT[:100], encoding="utf-8")
    with pytest.raises(MeasureError, match=r"has \d+ tokens, and 224 are needed"):
        compare_quality(QualityCase(**{**vars(case), "text": str(short)}), lambda event: None)


def test_a_model_that_is_nowhere(case, tmp_path):
    with pytest.raises(MeasureError, match="cannot load"):
        compare_quality(QualityCase(**{**vars(case), "model": str(tmp_path)}), lambda event: None)


def test_weights_that_could_run_code_are_not_read(case, tmp_path):
    """pytorch_model.bin is a pickle."""
    save_tiny_llama(tmp_path)
    torch.save(tiny_llama().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MeasureError, match="cannot load"):
        compare_quality(QualityCase(**{**vars(case), "model": str(tmp_path)}), lambda event: None)


def test_odd_blocks_are_refused_before_the_adapter_is_trained(case):
    events = []  # each step of training and each block sends one
    odd = Variant(name="odd", quantization=QuantizationSpec(blocksize=1024, compute_dtype=DType.FLOAT32))
    with pytest.raises(MeasureError, match=r"odd: .* no multiple of its block size"):
        compare_quality(QualityCase(**{**vars(case), "variants": (*VARIANTS, odd)}), events.append)
    assert events == []
