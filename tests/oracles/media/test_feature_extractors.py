"""The audio arithmetic against transformers' own feature extractors, on silence of 50 lengths."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from peftbench.inputs.media.audio import audio_of

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
DRAWN = random.Random(3)
SECONDS = [0.5, 1, 2.3, 10, 29.99, 30, 31, 45] + [DRAWN.uniform(0.1, 40) for _ in range(42)]


def silence(seconds: float) -> Any:
    return np.zeros(round(seconds * 16000), dtype=np.float32)


def shape(found: Any) -> tuple[int, ...]:
    return tuple(np.asarray(found["input_features"]).shape[1:])


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper(mels: int) -> None:
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=mels)
    for seconds in SECONDS:
        ours = audio_of({"model_type": "whisper", "num_mel_bins": mels}, seconds)
        assert ours.features == shape(extract(silence(seconds), sampling_rate=16000, return_tensors="np")), seconds


def test_qwen2_audio() -> None:
    from transformers.models.qwen2_audio.processing_qwen2_audio import Qwen2AudioProcessor
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    text = Qwen2AudioProcessor.__new__(Qwen2AudioProcessor)
    text.audio_token, text.feature_extractor = "<a>", WhisperFeatureExtractor(feature_size=128)
    text.feature_extractor.fetch_audio = lambda audio: audio
    for seconds in SECONDS:
        found, written = text._process_audio([silence(seconds)], sampling_rate=16000, return_tensors="np")
        ours = audio_of({"model_type": "qwen2_audio"}, seconds)
        assert (ours.features, ours.tokens) == (shape(found), written[0].count("<a>")), seconds


def test_voxtral() -> None:
    from transformers.models.voxtral.processing_voxtral import VoxtralProcessor
    from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

    text = VoxtralProcessor.__new__(VoxtralProcessor)
    text.feature_extractor = WhisperFeatureExtractor(feature_size=128)
    asked = {name: value for name, value in VoxtralProcessor.audio_kwargs.items() if name != "max_source_positions"}
    for seconds in SECONDS:
        found = text._retrieve_input_features([silence(seconds)], 3000, **asked)
        assert audio_of({"model_type": "voxtral"}, seconds).features == tuple(found.shape), seconds


def test_gemma3n() -> None:
    from transformers.models.gemma3n.feature_extraction_gemma3n import Gemma3nAudioFeatureExtractor

    extract = Gemma3nAudioFeatureExtractor()
    for seconds in SECONDS:
        ours = audio_of({"model_type": "gemma3n"}, seconds)
        assert ours.features == shape(extract([silence(seconds)], return_tensors="np")), seconds


def test_gemma4() -> None:
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.processing_gemma4 import Gemma4Processor

    text, extract = Gemma4Processor.__new__(Gemma4Processor), Gemma4AudioFeatureExtractor()
    text.audio_token, text.boa_token, text.eoa_token = "<a>", "<b>", "<e>"
    for seconds in SECONDS:
        found = extract([silence(seconds)], return_tensors="np")
        ours = audio_of({"model_type": "gemma4"}, seconds)
        assert (ours.features, ours.tokens) == (shape(found), text.replace_audio_token(found, 0).count("<a>")), seconds


def test_gemma4_unified() -> None:
    from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor

    extract = Gemma4UnifiedAudioFeatureExtractor()
    for seconds in SECONDS:
        ours = audio_of({"model_type": "gemma4_unified"}, seconds)
        assert ours.features == shape(extract([silence(seconds)], return_tensors="np")), seconds
