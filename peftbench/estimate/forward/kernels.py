"""Which kernels run the layers of a recipe on a card."""

from functools import lru_cache
from typing import NamedTuple

from peftbench.estimate.parts.card import CardTraits
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix
from peftbench.estimate.peft_types.tensors import adapted_weights, adapter_tensors
from peftbench.estimate.tape.device import ON_CPU, Device, reducing_as, rows_as
from peftbench.inputs.model.parts import AnyAttention
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec

FLASH_MAX_HEAD_DIM = 256
FEW_INDICES = 3072
ON_CUDA = Device(is_cuda=True, half_to_float=False)


class Kernels(NamedTuple):
    """What a card implies for the layers of a recipe."""

    attention: str = "flash"
    """"flash", "efficient", "math", "eager" or "cpu": for the layers that take the fastest, see part_kernel."""
    grouped_mm: bool = True
    """All experts are multiplied at once."""
    device: Device = ON_CUDA
    """What the layers run on."""
    embedding_sums: tuple[int, int] = (0, 0)
    """Rows of partial sums that the embeddings' gradient is made of: tenths of a row a token, and whole rows beside."""


def kernels_of(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> Kernels:
    """The kernels that run this model's layers on the card."""
    device = device_of(training.computes_in(card.bfloat16), card)
    if trains_vectors(training.adapter):
        at_once = as_needed(card, model, training).reducing_blocks
        device = device._replace(rows=rows_as(training.tokens), reducing_blocks=at_once)
    return Kernels(
        attention=attention_kernel(model, training, card),
        grouped_mm=not model.num_experts or card.grouped_mm,
        device=device,
        embedding_sums=_embedding_sums(model.vocab_size, training, card),
    )


def as_needed(card: CardTraits, model: ModelSpec, training: TrainingSpec) -> CardTraits:
    """The card without what this recipe does not ask for, so that cards which differ in it alone share an answer."""
    adapter = training.adapter
    if adapter is None or not trains_vectors(adapter):
        return card._replace(reducing_blocks=0)
    at_once = reducing_as(card.reducing_blocks, rows_as(training.tokens), _vector_widths(model, adapter))
    return card._replace(reducing_blocks=at_once)


@lru_cache(maxsize=256)
def _vector_widths(model: ModelSpec, adapter: AdapterSpec) -> frozenset[int]:
    """The widths that a vector of the adapter may have: those of its own tensors and of what they are put on."""
    own = [tensor.shape for tensor in adapter_tensors(model, adapter)]
    beneath = [weight.shape for weight in adapted_weights(model, adapter)]
    return frozenset(size for shape in (*own, *beneath) for size in shape)


def trains_vectors(adapter: AdapterSpec | None) -> bool:
    """Whether gradients of vectors are summed over the tokens at the peak: norms and biases are not."""
    return adapter is not None and (adapter.peft_type != "lora" or adapter.use_dora)


def device_of(dtype: DType, card: CardTraits) -> Device:
    """The device where 16-bit tensors have this type."""
    return ON_CPU if card.on_cpu else ON_CUDA._replace(half_to_float=dtype is DType.FLOAT16)


def _embedding_sums(vocab_size: int, training: TrainingSpec, card: CardTraits) -> tuple[int, int]:
    """Beyond 3072 tokens CUDA sums ten tokens at most, and no two words, in a row: a token adds a tenth and its word.

    Source: embedding_backward_cuda_kernel in pytorch/aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu.
    """
    if card.on_cpu or training.adapter is not None or training.tokens <= FEW_INDICES:
        return 0, 0
    return (11, 0) if training.tokens <= vocab_size else (1, vocab_size)


def attention_kernel(model: ModelSpec, training: TrainingSpec, card: CardTraits) -> str:
    """The kernel behind attn_implementation: "flash", "efficient", "math" or "eager"; or "cpu".

    SDPA takes flash attention for 16-bit types on compute capability 8.0 and newer, heads of up to 256 channels and
    no mask; then memory-efficient attention, which cannot share key heads among query heads; then the unfused math,
    which keeps scores of every pair of tokens. A grouped-query model on a T4 ends there.
    Source: sdp_utils.cpp in pytorch/aten/src/ATen/native/transformers/cuda; use_gqa_in_sdpa in transformers.
    """
    if training.attention == "eager" or (training.attention == "sdpa" and not model.family.sdpa):
        return "eager"
    if training.attention == "flash_attention_2":
        return "flash"
    if card.on_cpu:
        return "cpu"
    if is_prefix(training.adapter):  # more keys than queries: SDPA gets a mask, and key heads are copied
        return "efficient"
    if model.family.always_masked:  # a single key head comes unrepeated
        return "math" if model.num_key_value_heads == 1 < model.num_attention_heads else "efficient"
    if training.padded:  # transformers gives SDPA a mask, and copies key heads then
        return "efficient"
    parts = [layer.attention for layer in model.layers if layer.attention]
    if computes_in_half(training) and card.flash and any(map(_fits_flash, parts)):
        return "flash"
    return "math" if any(map(_leaves_keys_shared, parts)) else "efficient"


def part_kernel(part: AnyAttention | None, kernel: str, implementation: str) -> str:
    """The kernel of one layer's attention, where `kernel` is that of the layers that suit SDPA best."""
    if part is None or implementation != "sdpa":
        return kernel
    if kernel == "cpu" and part.head_dim != part.value_dim:
        return "math"
    if kernel == "flash" and not _fits_flash(part):
        return "math" if _leaves_keys_shared(part) else "efficient"
    return "efficient" if kernel == "math" and not _shares_keys(part) else kernel


def _fits_flash(part: AnyAttention) -> bool:
    """Source: check_head_dim_size_flash in sdp_utils.cpp."""
    return part.head_dim == part.value_dim and part.head_dim <= FLASH_MAX_HEAD_DIM


def _leaves_keys_shared(part: AnyAttention) -> bool:
    """Whether transformers leaves key heads for SDPA to share, which it does not for large ones."""
    return _shares_keys(part) and part.head_dim == part.value_dim and part.head_dim <= FLASH_MAX_HEAD_DIM


def _shares_keys(part: AnyAttention) -> bool:
    return part.key_value_heads != part.heads


def computes_in_half(training: TrainingSpec) -> bool:
    """Whether queries and keys reach attention in a 16-bit type.

    Without autocast, prepare_model_for_kbit_training's float32 norms make the whole stream float32.
    """
    if training.autocast:
        return True
    upcast = training.quantization is not None and training.quantization.upcast_unquantized
    return training.dtype is not DType.FLOAT32 and not upcast


def masks_sliding_layers(model: ModelSpec, training: TrainingSpec) -> bool:
    """Whether SDPA gets an explicit mask in sliding-window layers: from sequences as long as the window on.

    Source: _ignore_causal_mask_sdpa in transformers/masking_utils.py.
    """
    window = smallest_window(model)
    return window is not None and training.sequence_length >= window and training.attention == "sdpa"


def smallest_window(model: ModelSpec) -> int | None:
    """Tokens that layers which slide see, the fewest of them; None where none does."""
    return min((part.window for layer in model.layers if (part := layer.attention) and part.window), default=None)
