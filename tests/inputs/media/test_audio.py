"""What recordings become, pinned; tests/oracles/media/test_feature_extractors.py compares with transformers."""

from __future__ import annotations

from typing import Any

import pytest

from peftbench.base.errors import SpecError
from peftbench.inputs.media.audio import FAMILIES, Audio, audio_of

PINNED = [
    ("whisper", 10, Audio(3000, 1500, 0, (80, 3000), crossed=1500)),
    ("whisper", 45, Audio(3000, 1500, 0, (80, 3000), crossed=1500)),
    ("qwen2_audio", 10, Audio(3000, 1500, 250, (128, 3000))),
    ("qwen2_audio", 45, Audio(3000, 1500, 750, (128, 3000))),
    ("voxtral", 10, Audio(3000, 1500, 375, (1, 128, 3000), markers=1)),
    ("voxtral", 45, Audio(6000, 3000, 750, (2, 128, 3000), markers=1)),
    ("gemma3n", 10, Audio(997, 250, 188, (997, 128), markers=4)),
    ("gemma4", 10, Audio(999, 250, 250, (999, 128), markers=2)),
    ("gemma4", 45, Audio(2999, 750, 750, (2999, 128), markers=2)),
    ("gemma4_unified", 10, Audio(250, 0, 250, (250, 640), markers=2)),
]


@pytest.mark.parametrize(("family", "seconds", "heard"), PINNED)
def test_a_recording_of_each_family(family: str, seconds: int, heard: Audio) -> None:
    assert audio_of({"model_type": family}, seconds) == heard


def test_every_family_is_pinned() -> None:
    assert {family for family, _, _ in PINNED} == set(FAMILIES)


def test_config_and_processor_decide() -> None:
    assert audio_of({"model_type": "whisper", "num_mel_bins": 128}, 10).features == (128, 3000)
    assert audio_of({"model_type": "qwen2_audio"}, 10, {"chunk_length": 60}).rows == 3000


@pytest.mark.parametrize(
    ("config", "seconds", "said"),
    [
        ({"model_type": "llama"}, 10, "nothing is known of how 'llama' hears audio"),
        ({"model_type": "whisper"}, 0, "not 0"),
        ({"model_type": "whisper"}, float("nan"), "not nan"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], seconds: float, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        audio_of(config, seconds)
