"""Quantized weights against bitsandbytes itself: matrices of many shapes, and whole tiny models."""

import weakref

import pytest

torch = pytest.importorskip("torch")
bnb = pytest.importorskip("bitsandbytes")
transformers = pytest.importorskip("transformers")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from peftbench.estimate.parts.base_weights import weight_bytes  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.recipe import DType, QuantizationSpec  # noqa: E402
from peftbench.inputs.schemes.bitsandbytes import FOUR_BIT  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

SHAPES = ((64, 64), (33, 7), (1, 1), (1024, 520), (257, 513))


def constants_of(state):
    """Every tensor that a QuantState keeps on the device."""
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(t.nbytes for t in tensors)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blocksize", FOUR_BIT.blocksizes)
@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_one_matrix(shape, blocksize, double_quant, quant_type):
    codes, state = bnb.functional.quantize_4bit(
        torch.randn(shape), blocksize=blocksize, compress_statistics=double_quant, quant_type=quant_type
    )
    spec = QuantizationSpec(quant_type=quant_type, blocksize=blocksize, double_quant=double_quant)
    assert spec.code_bytes(shape[0] * shape[1]) == codes.nbytes
    assert spec.scheme.constants_bytes(*shape, spec) == constants_of(state)


SMALL = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
MODELS = {
    "llama": SMALL,
    "llama-tied": SMALL | {"model_type": "llama", "tie_word_embeddings": True},
    "qwen2": SMALL,
    "phi3": SMALL | {"pad_token_id": 0},
    "gpt2": {"vocab_size": 320, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "falcon": {"vocab_size": 320, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": {
        "vocab_size": 320, "hidden_size": 128, "ffn_dim": 192, "num_hidden_layers": 2,
        "num_attention_heads": 4, "word_embed_proj_dim": 64, "max_position_embeddings": 64,
        "do_layer_norm_before": False,
    },
    "mixtral": SMALL | {"num_local_experts": 2, "num_experts_per_tok": 1},
}  # fmt: skip
QUANTIZATIONS = {
    "nf4-double": QuantizationSpec(),
    "fp4": QuantizationSpec(quant_type="fp4", double_quant=False),
    "int8": QuantizationSpec(quant_type="int8"),
}


def bnb_config(spec):
    if spec.quant_type == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.quant_type,
        bnb_4bit_use_double_quant=spec.double_quant,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def parts_of(model):
    """Bytes of codes, constants and other parameters of a loaded model."""
    codes = constants = rest = 0
    for parameter in model.parameters():
        if isinstance(parameter, bnb.nn.Params4bit):
            codes += parameter.nbytes
            constants += constants_of(parameter.quant_state)
        elif isinstance(parameter, bnb.nn.Int8Params):
            codes += parameter.nbytes
            constants += parameter.SCB.nbytes
        else:
            rest += parameter.nbytes
    return codes, constants, rest


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model(name, quantization, tmp_path):
    config = {"model_type": name, **MODELS[name]}
    real = transformers.AutoConfig.for_model(**config)
    transformers.AutoModelForCausalLM.from_config(real, dtype=torch.bfloat16).save_pretrained(tmp_path)
    spec = QUANTIZATIONS[quantization]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=bnb_config(spec), dtype=torch.bfloat16
    )
    held = weight_bytes(read_config(config, name, "a test"), DType.BFLOAT16, spec)
    assert (held.quantized_bytes, held.constants_bytes, held.unquantized_bytes) == parts_of(loaded)


def test_upcast_by_prepare_model_for_kbit_training(tmp_path):
    peft = pytest.importorskip("peft")
    config = {"model_type": "mixtral", **MODELS["mixtral"]}
    real = transformers.AutoConfig.for_model(**config)
    transformers.AutoModelForCausalLM.from_config(real, dtype=torch.bfloat16).save_pretrained(tmp_path)
    spec = QuantizationSpec(upcast_unquantized=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=bnb_config(spec), dtype=torch.bfloat16
    )
    peft.prepare_model_for_kbit_training(loaded)
    held = weight_bytes(read_config(config, "mixtral", "a test"), DType.BFLOAT16, spec)
    assert (held.quantized_bytes, held.constants_bytes, held.unquantized_bytes) == parts_of(loaded)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_do_not_see_what_8_bit_layers_keep(reentrant):
    """MatMul8bitLt, which runs on a card: its input lives from forward on, and until the graph is gone."""
    from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState

    weight = torch.randn(32, 64)
    state = MatmulLtState()
    state.CB, state.SCB, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    inputs = []

    def layer(x):
        inputs.append(weakref.ref(doubled := 2 * x))
        return MatMul8bitLt.apply(doubled, weight, None, None, state).exp()

    loss = checkpoint(layer, torch.ones(8, 64, requires_grad=True), use_reentrant=reentrant).sum()
    assert [ref() is not None for ref in inputs] == [not reentrant]
    loss.backward()
    assert [ref() is not None for ref in inputs] == [not reentrant, False]
    del loss
    assert [ref() is not None for ref in inputs] == [False, False]
