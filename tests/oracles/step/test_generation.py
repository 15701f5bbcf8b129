"""The memory of generate(), compared with what the real classes keep alive on the CPU."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from oracle.live_bytes import LiveBytes  # noqa: E402

from peftbench.estimate.inference import estimate_inference  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.recipe import DType, InferenceSpec  # noqa: E402
from peftbench.memory import MemoryProfile, Part, Phase  # noqa: E402

BATCH, PROMPT, NEW = 2, 384, 24
SIZES = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 768,
    "vocab_size": 1000, "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 1000, "bos_token_id": 1, "eos_token_id": 2}
OPT = {**SIZES, "ffn_dim": 768, "word_embed_proj_dim": 256}

# CPU attention behaves as flash on a GPU where key heads are not shared; with shared ones in 16 bit only.
CASES = {
    "llama": ({"model_type": "llama", **SIZES}, "sdpa", "float32"),
    "llama, shared heads": ({"model_type": "llama", "num_key_value_heads": 2, **SIZES}, "sdpa", "bfloat16"),
    "llama, eager": ({"model_type": "llama", "num_key_value_heads": 2, **SIZES}, "eager", "float32"),
    "llama, large vocabulary": ({"model_type": "llama", **SIZES, "vocab_size": 60_000}, "sdpa", "bfloat16"),
    "qwen3": ({"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32, **SIZES}, "sdpa", "bfloat16"),
    "mistral, sliding": (
        {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 64, **SIZES}, "sdpa", "bfloat16"
    ),
    "olmo2": ({"model_type": "olmo2", **SIZES}, "sdpa", "float32"),
    "phi3": ({"model_type": "phi3", **SIZES}, "sdpa", "bfloat16"),
    "phi": ({"model_type": "phi", **SIZES}, "sdpa", "bfloat16"),
    "gpt2": ({"model_type": "gpt2", **GPT2}, "sdpa", "float32"),
    "gpt_neox": ({"model_type": "gpt_neox", **SIZES}, "sdpa", "float32"),
    "opt": ({"model_type": "opt", **OPT}, "sdpa", "bfloat16"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_prefill_and_decoding_peak_where_the_real_model_does(name):
    config, attention, dtype = CASES[name]
    prefill, decode = measure(config, attention, dtype)
    inference = InferenceSpec(
        prompt_tokens=PROMPT, new_tokens=NEW, batch_size=BATCH, dtype=DType(dtype), attention=attention
    )
    profile = estimate_inference(read_config(config, name, "test"), inference)
    assert moving_bytes(profile, Phase.PREFILL) == pytest.approx(prefill, rel=0.04)
    assert moving_bytes(profile, Phase.DECODE) == pytest.approx(decode, rel=0.04)


def measure(config: dict[str, object], attention: str, dtype: str) -> tuple[int, int]:
    """Peaks of the first forward pass and of the later ones, without the weights."""
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(**config)
    settings._attn_implementation = attention
    model = transformers.AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype)).eval()
    peaks: list[int] = []
    live = LiveBytes()

    def after_forward(*_: object) -> None:
        peaks.append(live.peak)
        live.peak = live.live

    model.register_forward_hook(after_forward)
    prompt = torch.randint(5, 900, (BATCH, PROMPT))
    with live, torch.no_grad():
        model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return peaks[0], max(peaks[1:])


def moving_bytes(profile: MemoryProfile, phase: Phase) -> int:
    """What comes and goes in a phase."""
    staying = (Part.WEIGHTS, Part.WORKSPACE, Part.SLACK, Part.CONTEXT)
    return sum(c.bytes for c in profile.alive_in(phase) if c.part not in staying)
