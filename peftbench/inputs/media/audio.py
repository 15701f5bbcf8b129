"""What a processor makes of speech: frames of features, rows in the encoder, tokens in the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, NamedTuple

from peftbench.base.errors import SpecError
from peftbench.inputs.media.settings import Settings, settings

LONGEST = 24 * 3600
"""Seconds; more are a typing error."""


class Audio(NamedTuple):
    """One recording as its processor leaves it."""

    frames: int
    """Columns of the spectrogram, padding included."""
    rows: int
    """Places in the encoder's layers; 0 without one."""
    tokens: int
    """Places in the text that its features fill; 0 where the text sees the encoder by cross-attention."""
    features: tuple[int, ...]
    """Shape of its input_features, float32."""
    markers: int = 0
    """Tokens that the processor writes around them."""
    crossed: int = 0
    """Places that the text sees by cross-attention instead."""


class AudioFamily(NamedTuple):
    """How the feature extractor of a family works; sources: its feature_extraction and processing file."""

    hear: Callable[[Mapping[str, Any], int], Audio]
    """Called with the settings and the number of samples."""
    defaults: Mapping[str, Any]
    implied: Mapping[str, str] = {}
    """Where config.json says the same."""


def audio_of(config: Mapping[str, object], seconds: float, processor: Mapping[str, object] = {}) -> Audio:
    """What a recording becomes; `processor` is preprocessor_config.json, where that says otherwise.

    Raises SpecError for a model that hears nothing.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise SpecError(
            f"nothing is known of how {str(config.get('model_type'))[:60]!r} hears audio.",
            "Leave --audio-seconds out to plan for text only.",
        )
    if not 0 < seconds <= LONGEST:
        raise SpecError(f"audio lasts more than 0 and at most {LONGEST:,} seconds, not {seconds:g}.")
    chosen = settings(family.defaults, family.implied, config, processor)
    return family.hear(chosen, max(1, round(seconds * chosen["sampling_rate"])))


def _chunk(s: Settings) -> int:
    """Samples of the window that is always filled."""
    return int(s["chunk_length"] * s["sampling_rate"])


def _whisper(s: Settings, samples: int) -> Audio:
    """Padded or cut to one window; the second convolution halves it."""
    frames = _chunk(s) // s["hop_length"]
    return Audio(frames, frames // 2, 0, (s["feature_size"], frames), crossed=frames // 2)


def _qwen2_audio(s: Settings, samples: int) -> Audio:
    """As Whisper, then halved again where the recording is; padding gets no token."""
    frames = _chunk(s) // s["hop_length"]
    heard = ceil(min(samples, _chunk(s)) / s["hop_length"])
    return Audio(frames, frames // 2, ((heard - 1) // 2 - 1) // 2 + 1, (s["feature_size"], frames))


def _voxtral(s: Settings, samples: int) -> Audio:
    """As many windows as it takes; rows are joined until they are as wide as the encoder's MLP."""
    windows = ceil(samples / _chunk(s))
    frames = _chunk(s) // s["hop_length"]
    rows = windows * (frames // 2)
    tokens = rows * s["hidden_size"] // s["intermediate_size"]
    return Audio(windows * frames, rows, tokens, (windows, s["feature_size"], frames), markers=1)


def _spectrogram(s: Settings, samples: int, lead: int) -> int:
    """Frames that a recording fills, after padding to a multiple of 128 samples and `lead` silent ones."""
    whole = min(ceil(samples / 128) * 128, _chunk(s))
    return int((whole + lead - s["frame_length"] - 1) // s["hop_length"] + 1)


def _quarter(frames: int) -> int:
    """Frames after two convolutions of stride 2."""
    return ceil(ceil(frames / 2) / 2)


def _gemma3n(s: Settings, samples: int) -> Audio:
    """Always as many tokens; between two line ends, begin and end."""
    frames = max(0, _spectrogram(s, samples, 0))
    return Audio(frames, _quarter(frames), s["audio_seq_length"], (frames, s["feature_size"]), markers=4)


def _gemma4(s: Settings, samples: int) -> Audio:
    """A token for four frames that lie within the recording."""
    lead = s["frame_length"] // 2
    frames = max(0, _spectrogram(s, samples, lead))
    heard = max(0, (min(samples, _chunk(s)) + lead - s["frame_length"] - 1) // s["hop_length"] + 1)
    tokens = min(_quarter(heard), s["audio_seq_length"])
    return Audio(frames, _quarter(frames), tokens, (frames, s["feature_size"]), markers=2)


def _gemma4_unified(s: Settings, samples: int) -> Audio:
    """No encoder: pieces of the waveform are projected."""
    tokens = ceil(samples / s["audio_samples_per_token"])
    return Audio(tokens, 0, tokens, (tokens, s["audio_samples_per_token"]), markers=2)


_WINDOW = {"sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "feature_size": 128}
_MEL = {"feature_size": "audio_config.num_mel_bins"}
FAMILIES = {
    "whisper": AudioFamily(_whisper, {**_WINDOW, "feature_size": 80}, {"feature_size": "num_mel_bins"}),
    "qwen2_audio": AudioFamily(_qwen2_audio, _WINDOW, _MEL),
    "voxtral": AudioFamily(
        _voxtral, {**_WINDOW, "hidden_size": 1280, "intermediate_size": 5120},
        {**_MEL, "hidden_size": "audio_config.hidden_size", "intermediate_size": "audio_config.intermediate_size"},
    ),
    "gemma3n": AudioFamily(
        _gemma3n, {**_WINDOW, "frame_length": 512, "audio_seq_length": 188},
        {"feature_size": "audio_config.input_feat_size", "audio_seq_length": "audio_soft_tokens_per_image"},
    ),
    "gemma4": AudioFamily(_gemma4, {**_WINDOW, "frame_length": 320, "audio_seq_length": 750}),
    "gemma4_unified": AudioFamily(
        _gemma4_unified, {"sampling_rate": 16000, "audio_samples_per_token": 640},
        {"audio_samples_per_token": "audio_config.audio_embed_dim"},
    ),
}  # fmt: skip
