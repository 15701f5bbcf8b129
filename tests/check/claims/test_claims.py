"""results/claims.md is what `peftbench claims` prints, with the verdicts that the facts support."""

from pathlib import Path

from click.testing import CliRunner

from peftbench.check.claims.claims import Case, Claim, Truth
from peftbench.check.claims.effect_claims import claims
from peftbench.cli import main

PAGE = Path(__file__).parents[3] / "results" / "claims.md"


def test_the_page_is_what_the_command_prints():
    """Run `peftbench claims > results/claims.md` after a formula has changed."""
    result = CliRunner().invoke(main, ["claims"])
    assert result.exit_code == 0
    assert PAGE.read_text(encoding="utf-8") == result.stdout


def test_a_claim_is_as_true_as_its_cases():
    def claim(*holding):
        return Claim("said", "heard", tuple(Case("a", "b", holds) for holds in holding), "why")

    assert claim(True, True).truth is Truth.TRUE
    assert claim(True, False).truth is Truth.PARTLY
    assert claim(False).truth is Truth.FALSE


def test_verdicts_that_do_not_hang_on_a_formula():
    """Counts and published facts; the rest may move with the model of activations."""
    truth = {claim.said: claim.truth for claim in claims()}
    assert truth["An 8B model in 4 bit is 4 GB."] is Truth.FALSE
    assert truth["QLoRA of a 65B model fits one 48 GB card."] is Truth.TRUE
    assert truth["A checkpoint of a 70B model is 140 GB."] is Truth.TRUE
    assert truth["QLoRA saves 30 GB or more of optimizer states on an 8B model."] is Truth.TRUE
    assert truth["A LoRA adapter is less than 1 % of the parameters."] is Truth.PARTLY
    rank_16 = "r = 16 on a 4096 × 4096 matrix is 131,072 parameters instead of 16.8 million."
    assert truth[rank_16] is Truth.TRUE
    assert truth["A merged LoRA adapter costs no latency."] is Truth.TRUE
    assert truth["4 bit costs little quality."] is Truth.PARTLY


def test_published_figures_alone_refute_that_4_bit_is_faster():
    claim = next(claim for claim in claims() if claim.said == "4 bit makes inference much faster.")
    published = [case for case in claim.cases if "published" in case.assumptions]
    assert len(published) > 10
    assert not any(case.holds for case in published)


def test_a_dynamic_adapter_is_slow_by_the_token_and_not_in_long_prompts():
    claim = next(claim for claim in claims() if claim.said.startswith("A dynamic adapter"))
    holds = [case.holds for case in claim.cases if "expected by formula" in case.assumptions]
    assert holds == [False, False, True], "a token on all linear layers, on q_proj and v_proj, and prefill"
