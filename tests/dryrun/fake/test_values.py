"""What depends on data, under a recorder: masks, counts and numbers read back are those that real data has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.oracle]
torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from peftbench.dryrun.trace.recorder import Recorder  # noqa: E402

TOKENS, EXPERTS, CHOSEN = 30, 8, 2


@pytest.fixture(autouse=True)
def recorder() -> Iterator[Recorder]:
    made = Recorder("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True), made:
        yield made


def indices(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.long)


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mask_of_which_nothing_is_known_is_full() -> None:
    mask = torch.empty(4, 5) > 0.5
    assert mask.nonzero().shape == (20, 2)
    assert torch.empty(4, 5)[mask].shape == torch.masked_select(torch.empty(4, 5), mask).shape == (20,)
    assert torch.masked_select(torch.empty(3, 4, 5), mask).shape == (60,)
    assert (~mask).nonzero().shape == (0, 2) and not (~mask).any()


def test_a_mask_made_of_indices_has_as_many_elements_set() -> None:
    """As SHiRA makes it."""
    mask = torch.zeros(4, 5).to(torch.bool).view(1, -1)
    mask = mask.scatter_(1, indices(1, 7), torch.ones(1, 7, dtype=torch.bool)).view(4, 5)
    rows, columns = torch.where(mask == 1.0)
    assert rows.shape == columns.shape == (7,)


def test_the_tokens_of_each_expert_add_up_to_all() -> None:
    hot = F.one_hot(indices(TOKENS, CHOSEN), num_classes=EXPERTS).permute(2, 1, 0)
    assert sum(len(torch.where(hot[expert])[1]) for expert in range(EXPERTS)) == pytest.approx(TOKENS * CHOSEN, abs=8)
    scattered = torch.zeros(TOKENS, EXPERTS).scatter(1, indices(TOKENS, CHOSEN), 1)
    for counts in (
        scattered.long().sum(0), hot.sum((1, 2)), torch.bincount(indices(TOKENS * CHOSEN), minlength=EXPERTS),
        torch.histc(indices(TOKENS * CHOSEN).float(), bins=EXPERTS).long(),
    ):  # fmt: skip
        sizes = counts.tolist()
        assert sum(sizes) == TOKENS * CHOSEN and max(sizes) - min(sizes) <= 1
        assert len(torch.empty(TOKENS * CHOSEN, 3).split(sizes)) == EXPERTS


def test_positions_that_a_mask_picks_are_a_tensor_for_a_moment(recorder: Recorder) -> None:
    mask = torch.empty(64) > 0
    before = len(recorder.events)
    kept = torch.empty(64, 2)[mask]
    assert kept.shape == (64, 2)
    assert 64 * 8 in [recorder.blocks[number].bytes for number in recorder.events[before:] if number >= 0]


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_infinite() -> None:
    values = torch.empty(3)
    assert not values.isinf().any() and not values.isnan().any() and values.isfinite().all()
    assert not (values.abs() == float("inf")).any()


def test_numbers_read_back_are_those_that_are_known() -> None:
    assert torch.zeros(3, dtype=torch.long).max().item() == 0
    assert torch.full((3,), 7)[1].item() == 7
    assert torch.ones(2, 5, dtype=torch.long).sum(-1).tolist() == [5, 5]
    assert torch.tensor(3).item() == 3
    assert indices(3)[0].item() == 1 and torch.empty(()).item() == 1.0


def test_what_is_overwritten_is_forgotten() -> None:
    counter = torch.zeros(())
    counter += 1
    assert counter.item() == 1.0
    padded = torch.ones(4, dtype=torch.long)
    padded[2:] = indices(2)
    assert padded.nonzero().shape == (4, 1)
    many = [torch.zeros(2), torch.zeros(2)]
    torch._foreach_add_(many, 1)
    assert many[1].max().item() == 1.0


def test_values_that_are_found_are_one() -> None:
    assert indices(9).unique().shape == (1,)
    assert torch.repeat_interleave(indices(5)).shape == (5,)
    assert torch.equal(torch.empty(2), torch.empty(2))
