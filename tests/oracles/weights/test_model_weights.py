"""The real transformers classes judge the list of weights and every value read from a config.json."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from known_models import BY_FORMULA, FEW  # noqa: E402
from oracle.model_variants import VARIANTS  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from peftbench.estimate.replay.load import in_order  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.model.config_keys import ACTIVATIONS  # noqa: E402
from peftbench.inputs.model.spec import ModelSpec  # noqa: E402
from peftbench.inputs.model.weight import Role  # noqa: E402
from peftbench.inputs.model.weights import linear_modules, num_parameters, weights_of  # noqa: E402
from peftbench.libraries.model import read_weights  # noqa: E402

pytestmark = pytest.mark.oracle

LARGE = (Role.EMBEDDING, Role.LINEAR, Role.EXPERTS, Role.LM_HEAD)
BOTH = {**{entry.id: dict(entry.config) for entry in BY_FORMULA}, **VARIANTS}
NAMES = [name if name in FEW or name in VARIANTS else pytest.param(name, marks=pytest.mark.slow) for name in BOTH]


def real_config(config: dict[str, object]) -> transformers.PretrainedConfig:
    """The configuration object; a padding id of 0 fits the small vocabularies here and costs nothing."""
    values = {"pad_token_id": 0} | {k: v for k, v in copy.deepcopy(config).items() if k != "model_type"}
    return AutoConfig.for_model(config["model_type"], **values)


def real_model(config: dict[str, object]) -> torch.nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(real_config(config))


def spec(name: str) -> ModelSpec:
    return read_config(BOTH[name], name, "test")


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_its_name_and_shape(name: str) -> None:
    real = real_model(BOTH[name])
    wanted = Counter((*key.split(".")[-2:], tuple(p.shape)) for key, p in real.named_parameters())
    found: Counter[tuple[str, str, tuple[int, ...]]] = Counter()
    for weight in weights_of(spec(name)):
        found[weight.module, weight.parameter, weight.shape] += weight.count
    assert found == wanted
    assert num_parameters(spec(name)) == sum(p.numel() for p in real.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_is_in_its_layer(name: str) -> None:
    real = {key for key, _ in real_model(VARIANTS[name]).named_parameters()}
    for weight in weights_of(spec(name)):
        ends = [f".{layer}.{weight.path}.{weight.parameter}" for layer in weight.layers or ()]
        ends = ends if weight.layers is not None else [f"{weight.path}.{weight.parameter}"]
        for end in ends:
            assert any(key.endswith(end) for key in real), end


@pytest.mark.parametrize("name", VARIANTS)
def test_matrices_come_to_the_card_in_the_order_of_the_model(name: str) -> None:
    """Norms, biases, routers and convolutions are small blocks, whose order changes nothing."""
    listed = [weight for weight in in_order(spec(name)) if weight.role in LARGE]
    wanted = {(weight.module, weight.parameter) for weight in listed}
    real = [tuple(key.split(".")[-2:]) for key, _ in real_model(VARIANTS[name]).named_parameters()]
    assert [(weight.module, weight.parameter) for weight in listed] == [each for each in real if each in wanted]


@pytest.mark.parametrize("name", VARIANTS)
def test_linear_weights_are_what_peft_calls_all_linear(name: str) -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    config = peft.LoraConfig(target_modules="all-linear")
    targets = _maybe_include_all_linear_layers(config, real_model(VARIANTS[name])).target_modules
    assert {target.rsplit(".", 1)[-1] for target in targets} == set(linear_modules(spec(name)))
    assert len(targets) == sum(w.count for w in weights_of(spec(name)) if w.role is Role.LINEAR)


@pytest.mark.parametrize("name", VARIANTS)
def test_linear_features_agree(name: str) -> None:
    features = Counter()
    for key, module in real_model(VARIANTS[name]).named_modules():
        if isinstance(module, torch.nn.Linear) and not key.endswith("lm_head"):
            features[key.rsplit(".", 1)[-1], module.in_features, module.out_features] += 1
        if isinstance(module, transformers.pytorch_utils.Conv1D):
            features[(key.rsplit(".", 1)[-1], *module.weight.shape)] += 1
    found = Counter()
    for weight in weights_of(spec(name)):
        if weight.role is Role.LINEAR:
            found[weight.module, weight.in_features, weight.out_features] += weight.count
    assert found == features


@pytest.mark.parametrize("name", VARIANTS)
def test_quantizable_weights_are_what_transformers_hands_to_bitsandbytes(name: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import get_keys_to_not_convert

    model = real_model(VARIANTS[name])
    config = transformers.BitsAndBytesConfig(load_in_4bit=True)
    replace_with_bnb_linear(model, [*get_keys_to_not_convert(model), *read_weights(model)], config)
    four_bit = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(four_bit) == sum(w.count for w in weights_of(spec(name)) if w.quantizable)


SAME_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "tie_word_embeddings")
OTHER_NAMES = {
    "intermediate_size": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "num_key_value_heads": ("num_key_value_heads",),
    "hidden_act": ("hidden_activation", "hidden_act", "activation_function", "activation"),
    "attention_dropout": ("attention_dropout", "attn_pdrop"),
    "residual_dropout": ("resid_pdrop", "hidden_dropout", "dropout"),
    "max_position_embeddings": ("max_position_embeddings",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "num_experts_per_tok": ("num_experts_per_tok",),
}


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_configuration_class(name: str) -> None:
    real, found = real_config(BOTH[name]), spec(name)
    for field in SAME_NAMES:
        if field != "num_attention_heads" or found.num_attention_heads:
            assert getattr(found, field) == getattr(real, field), field
    for field, keys in OTHER_NAMES.items():
        wanted = [getattr(real, key) for key in keys if getattr(real, key, None) is not None]
        if not getattr(found, field) and not (found.num_experts if "expert" in field else found.num_attention_heads):
            continue
        if wanted and (field != "num_key_value_heads" or found.model_type != "falcon"):
            assert getattr(found, field) == wanted[0], field


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_that_slide_or_skip_the_rotation(name: str) -> None:
    real, found = real_config(VARIANTS[name]), spec(name)
    window, layers = getattr(real, "sliding_window", None), range(real.num_hidden_layers)
    types = getattr(real, "layer_types", None) or ["sliding_attention"] * real.num_hidden_layers
    slides = tuple(i for i in layers if types[i] == "sliding_attention") if window else ()
    assert found.sliding_layers == slides
    assert found.sliding_window == (window if slides else None)
    rotated = getattr(real, "no_rope_layers", None) or [1] * real.num_hidden_layers
    if real.model_type == "cohere2" or (real.model_type == "exaone4" and window):
        rotated = [i in slides for i in layers]  # `if self.sliding_window is not None` and its like in their attention
    assert found.layers_without_rope == tuple(i for i in layers if not rotated[i])


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_and_rotation_dimensions(name: str) -> None:
    found = spec(name)
    if not found.num_attention_heads:
        return
    model = AutoModelForCausalLM.from_config(real_config(VARIANTS[name]))
    names = ("qk_head_dim", "head_dim", "head_size")
    named = (m for key, m in model.named_modules() if key.endswith(("attn", "attention", "mixer")))
    attention = next(m for m in named if any(hasattr(m, name) for name in names))
    assert found.head_dim == next(value for name in names if (value := getattr(attention, name, None)))
    frequencies = [
        len(b) for key, b in model.named_buffers() if key.endswith("inv_freq") and "original" not in key
    ]
    if not found.alibi:  # Falcon builds the table but does not use it
        assert {2 * n for n in frequencies} == ({found.rotary_dim} if found.rotary_dim else set())


def test_known_activations_exist() -> None:
    from transformers.activations import ACT2FN

    assert set(ACT2FN) - {"prelu"} == ACTIVATIONS


def test_multimodal_gemma3_is_read_as_its_language_model() -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "sliding_window": 16}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 32}}
    real = real_config(config).text_config
    found = read_config(config, "gemma", "test")
    assert found.model_type == real.model_type == "gemma3_text"
    assert (found.num_attention_heads, found.num_key_value_heads, found.vocab_size, found.head_dim) == (
        real.num_attention_heads, real.num_key_value_heads, real.vocab_size, real.head_dim,
    )  # fmt: skip
    with torch.device("meta"):
        assert num_parameters(found) == sum(
            p.numel() for p in AutoModelForCausalLM.from_config(real).parameters()
        )
