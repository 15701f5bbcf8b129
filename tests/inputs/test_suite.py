"""Suites: every shipped one is read and planned, and every mistake is told with its place."""

import pytest

from peftbench.base.errors import PeftbenchError
from peftbench.catalog.gpus import find_gpu
from peftbench.decide.suite.cases import cases_of
from peftbench.decide.suite.predict_case import predict_case
from peftbench.inputs.suite import COMPARING, find_suite, read_suite, shipped_suites

SHIPPED = [name for name, path in shipped_suites().items() if read_suite(path).kind not in COMPARING]
"""Those of variants are in tests/decide/suite/test_variants.py."""


def test_the_suites_are_there():
    assert {"smoke", "methods-1b", "methods-8b", "t4", "sequence-sweep", "batch-sweep", "optimizers", "checkpointing",
            "peft-zoo"} <= set(SHIPPED)  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_every_case_of_every_suite_can_be_planned(name):
    suite = read_suite(find_suite(name))
    gpu = find_gpu(suite.gpu) if suite.gpu else None
    cases = cases_of(suite, gpu)
    assert cases and (gpu or suite.device == "cpu")
    assert len({each.case.id for each in cases}) == len({each.case.key for each in cases}) == len(cases)
    for each in cases:
        assert predict_case(each.case, gpu).allocated_bytes > 0


def suite_of(tmp_path, text, name="mine"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return cases_of(read_suite(path))


GOOD = "about: a\nmodel: llama-3.2-1b\ncases:\n  lora: {method: lora, r: 4}\n"


def test_a_sweep_is_every_combination(tmp_path):
    text = GOOD + "  full: {method: full}\nsweep: {sequence_length: [64, 128], micro_batch_size: [1, 2]}\n"
    cases = suite_of(tmp_path, text)
    assert len(cases) == 8
    assert cases[1].case.id == "lora sequence_length=64 micro_batch_size=2"
    assert cases[1].case.recipe.tokens == 128


def test_a_case_is_what_plan_prices(tmp_path):
    import peftbench

    (each,) = suite_of(tmp_path, GOOD + "base: {sequence_length: 64, gradient_checkpointing: false}\n")
    plan = peftbench.plan("llama-3.2-1b", method="lora", r=4, sequence_length=64, gradient_checkpointing=False)
    assert each.case.recipe == plan.recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("about", "abuot"), "Did you mean about?"),
        (GOOD + "base: {sequence_lenght: 64}\n", "Did you mean"),
        (GOOD + "base: {sequence_length: long}\n", "must be a whole number"),
        (GOOD + "base: {sequence_length: {a: 1}}\n", "base.sequence_length (line 5) must be"),
        (GOOD + "base: [1]\n", "base (line 5) must be an object"),
        (GOOD + "sweep: {r: 4}\n", "must be a list"),
        (GOOD + "sweep: {r: []}\n", "must be a list"),
        (GOOD + "kind: latancy\n", "Did you mean latency?"),
        (GOOD + "device: tpu\n", "must be one of cuda, cpu"),
        (GOOD + "largest: r\n", "must be one of"),
        (GOOD + "steps: many\n", "steps (line 5) must be a whole number"),
        (GOOD + "steps: 0\n", "at least 1"),
        (GOOD + "warmup_steps: 1\n", "at least 2"),
        (GOOD + "about: b\n", "line 5: the key 'about' comes twice"),
        (GOOD.replace("lora:", "../lora:"), "cannot be named"),
        (GOOD.replace("lora, r", "loro, r"), "lora"),
        (GOOD.replace("llama-3.2-1b", "llama-9"), "unknown model"),
        (GOOD.replace("model: llama-3.2-1b", "model: {hidden_size: 8}"), "needs a model_type"),
        ("about: a\nmodel: x\n", "lacks the field 'cases'"),
        ("cases: {}\nabout: a\nmodel: llama-3.2-1b\n", "has no cases"),
        ("- 1\n", "must be a mapping"),
        ("a: [\n", "this is not YAML"),
        ("", "must be a mapping"),
        ("&a [*a]\n", "holds itself"),
        ("!!python/object/apply:os.system ['true']\n", "this is not YAML"),
    ],
)
def test_mistakes_are_told(tmp_path, text, says):
    with pytest.raises(PeftbenchError) as error:
        suite_of(tmp_path, text)
    assert says in str(error.value)
    assert "mine" in str(error.value) or "model" in str(error.value)


@pytest.mark.parametrize("name", ["Upper", "a b", ".hidden", "x" * 80])
def test_a_suite_names_a_file_safely(tmp_path, name):
    with pytest.raises(PeftbenchError, match="cannot be named"):
        suite_of(tmp_path, GOOD, name)


@pytest.mark.parametrize(("text", "says"), [("smok", "Did you mean smoke?"), ("no/such.yaml", "no such suite")])
def test_a_suite_that_is_not_there(text, says):
    with pytest.raises(PeftbenchError) as error:
        find_suite(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace("r: 4", 'r: "64"'), "line 4: cases.lora.r: --r must be a whole number"),
        (GOOD + "base:\n  r: 4\n  dtype: half\n", "line 7: base.dtype: dtype cannot be 'half'"),
        (GOOD + "sweep:\n  r: [4, 0]\n", "line 6: sweep.r: r must be at least 1"),
        (GOOD + "stpes: 3\n", r"\(line 5\) has no field 'stpes'"),
        (GOOD + "steps: .inf\n", r"steps \(line 5\) must be a finite number"),
    ],
)
def test_a_mistake_has_its_line(tmp_path, text, says):
    with pytest.raises(PeftbenchError, match=rf"mine\.yaml.*{says}"):
        suite_of(tmp_path, text)
