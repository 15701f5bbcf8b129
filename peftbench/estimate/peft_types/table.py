"""PEFT types, one row each: options with PEFT's defaults, the tensors it adds, and what is special about it.

Read from PEFT 0.21: `tuners/<type>/{config,layer,model}.py`. tests/oracles/weights/test_peft_counts.py holds each row
to get_peft_model. To add a type, add a row, and a function in shapes.py if its tensors take more than a line.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from peftbench.estimate.peft_types import frozen, prompts, shapes
from peftbench.estimate.peft_types.frozen import Frozen, Kind, Sites
from peftbench.estimate.peft_types.shapes import Options, Shapes, Site
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weight import Role

Value = int | float | str | bool | None

MATRICES = frozenset({Role.LINEAR, Role.LM_HEAD})
VIRTUAL_TOKENS = {"num_virtual_tokens": 20}
"""PEFT has no default; the examples in its documentation use 20."""


def nothing(*_: object) -> tuple[()]:
    """Types that have no tensors of a kind."""
    return ()


class TrainedIn(Enum):
    """The dtype of the trained tensors."""

    ADAPTER = "AdapterSpec.dtype: float32 under PEFT's autocast_adapter_dtype"
    FLOAT32 = "float32 whatever the base model's dtype"
    BASE = "the dtype of the base weights"


class Saved(Enum):
    """What the adapter file holds."""

    TRAINED = "the trained tensors"
    WITH_FROZEN = "the trained and the frozen tensors"
    WITH_COPIES = "a copy of the shared tensors for each module"


class Method(NamedTuple):
    """One PEFT type."""

    options: Mapping[str, Value] = MappingProxyType({})
    """Options that decide its size, with their defaults."""
    words: Mapping[str, tuple[Value, ...]] = MappingProxyType({})
    """All values of those that take a few."""
    each: Callable[[Site, Options], Shapes] | None = None
    """Tensors of each targeted module; None for types that have no target modules."""
    shared: Callable[[Site, Options], Shapes] = nothing
    """Tensors that all modules of one name share, or some of them."""
    together: Callable[[Sites, Options], Shapes] = nothing
    """Tensors that groups of modules share."""
    whole: Callable[[ModelSpec, Options], Shapes] = nothing
    """Tensors that the model has once."""
    frozen_each: Callable[[Site, Options], Frozen] = nothing
    frozen_whole: Callable[[Sites, ModelSpec, Options], Frozen] = nothing
    frozen_on_host: bool = False
    """PEFT leaves the frozen tensors in host memory, from where they come for each forward; only the Trainer moves them
    with the rest of a model, unless that is quantized."""
    trained_in: TrainedIn = TrainedIn.ADAPTER
    saved: Saved = Saved.TRAINED
    saved_whole: Callable[[ModelSpec, Options], Shapes] | None = None
    """Where the file holds something else than `whole`."""
    targets: str = "lora"
    """PEFT's table of default targets."""
    roles: frozenset[Role] = MATRICES
    rank: str | None = "r"
    """The option that AdapterSpec.r sets."""
    rank_within_matrix: bool = True
    """A rank above the smaller dimension would be a mistake; types with shared projections may exceed it."""
    conv1d: bool = True
    """Works on GPT-2's Conv1D."""
    subclasses: bool = True
    """Works on subclasses of nn.Linear, which Falcon's layers are."""


METHODS: Mapping[str, Method] = {
    "lora": Method(
        each=shapes.lora, roles=MATRICES | {Role.EMBEDDING, Role.ROUTER, Role.EXPERTS},
        options={
            "r": 8, "lora_alpha": 8, "lora_bias": False, "use_dora": False, "use_rslora": False, "lora_dropout": 0.0,
            "init_lora_weights": True},
        words={"init_lora_weights": (True, "mica")},  # any other first values train the same
        frozen_each=frozen.lora, saved=Saved.WITH_FROZEN),
    "adalora": Method(each=shapes.adalora, options={"init_r": 12, "lora_alpha": 8}, rank="init_r", targets="adalora"),
    "hira": Method(each=shapes.low_rank, options={"r": 32}),
    "loha": Method(each=lambda s, o: [(s.m, o["r"]), (o["r"], s.k)] * 2, options={"r": 8}, conv1d=False),
    "lokr": Method(
        each=shapes.lokr, options={"r": 8, "decompose_both": False, "decompose_factor": -1},
        rank_within_matrix=False, conv1d=False),
    "oft": Method(
        each=shapes.oft, options={"r": 0, "oft_block_size": 32, "block_share": False}, frozen_each=frozen.oft,
        rank_within_matrix=False, conv1d=False),
    "boft": Method(
        each=shapes.boft, options={"boft_block_size": 4, "boft_block_num": 0}, rank=None, conv1d=False,
        frozen_each=lambda s, o: [(s.k * s.k, Kind.FLOAT32)], frozen_on_host=True),  # a permutation, dense
    "ia3": Method(
        each=lambda s, o: [(1, s.k) if s.feedforward else (s.m, 1)], options={"feedforward_modules": ""}, rank=None,
        targets="ia3"),  # "": those of the architecture
    "vera": Method(
        each=lambda s, o: [(s.m,), (o["r"],)], options={"r": 256}, targets="vera", rank_within_matrix=False,
        frozen_whole=frozen.vera, saved=Saved.WITH_FROZEN),
    "pvera": Method(
        each=lambda s, o: [(s.m,), (2 * o["r"],)], options={"r": 256}, targets="vera", rank_within_matrix=False,
        frozen_whole=frozen.pvera, saved=Saved.WITH_FROZEN),
    "randlora": Method(
        each=shapes.randlora, options={"r": 32}, rank_within_matrix=False,
        frozen_whole=frozen.randlora, saved=Saved.WITH_COPIES),
    "fourierft": Method(each=shapes.frequencies, options={"n_frequency": 1000}, rank=None, targets="fourierft"),
    "waveft": Method(each=shapes.frequencies, options={"n_frequency": 2592}, rank=None, targets="fourierft"),
    "glora": Method(
        each=shapes.glora, conv1d=False, subclasses=False,
        options={"r": 8, "config_A_B": "lora", "config_C": "lora", "config_D_E": "constant"},
        words={
            "config_A_B": ("lora", "vector", "constant", "none"), "config_C": ("lora", "vector", "none"),
            "config_D_E": ("vector", "constant", "none")},
        frozen_each=frozen.glora, saved=Saved.WITH_FROZEN),
    "hra": Method(each=lambda s, o: [(s.k, o["r"])], options={"r": 8}, conv1d=False),
    "miss": Method(
        each=shapes.miss, options={"r": 64, "mini_r": 1, "init_weights": True}, conv1d=False,
        words={"init_weights": (True, False, "bat", "mini")}),
    "road": Method(each=shapes.road, options={"variant": "road_1", "group_size": 64}, rank=None, conv1d=False),
    "shira": Method(
        each=shapes.shira, options={"r": 32}, targets="vera", conv1d=False,
        frozen_each=lambda s, o: [(2 * o["r"] * (s.k + s.m), Kind.INT32)], saved=Saved.WITH_FROZEN),
    "c3a": Method(each=shapes.c3a, options={"block_size": 256}, rank=None, targets="fourierft", conv1d=False),
    "delora": Method(
        each=lambda s, o: [(o["r"], s.k), (s.m, o["r"]), (1,)], options={"r": 8}, conv1d=False,
        frozen_each=lambda s, o: [(s.k, Kind.ADAPTER)], saved=Saved.WITH_FROZEN),
    "gralora": Method(each=shapes.gralora, options={"r": 32, "gralora_k": 2, "hybrid_r": 0}),
    "deft": Method(each=shapes.deft, options={"r": 8, "para": False}),
    "psoft": Method(
        each=shapes.psoft, conv1d=False, frozen_each=frozen.psoft,
        options={
            "r": 32, "psoft_orth": True, "psoft_mag_a": True, "psoft_mag_b": True, "psoft_svd": "full",
            "use_cayley_neumann": False, "num_cayley_neumann_terms": 5},
        words={"psoft_svd": ("full", "lowrank")}),
    "peanut": Method(each=shapes.peanut, options={"r": 32, "depth": 0}, conv1d=False),
    "osf": Method(
        each=shapes.osf, options={"effective_rank": None}, rank=None, targets="osf", conv1d=False,
        frozen_each=frozen.osf),
    "vblora": Method(
        each=shapes.vblora, options={"r": 4, "num_vectors": 256, "vector_length": 256}, targets="adalora",
        whole=lambda model, o: [(o["num_vectors"], o["vector_length"])]),  # a bank, of which every matrix is composed
    "poly": Method(each=shapes.poly, options={"r": 8, "n_tasks": 1, "n_skills": 4, "n_splits": 1}, conv1d=False),
    "supertuning": Method(
        each=shapes.supertuning, options={"r": None, "sparsity": 0.99}, conv1d=False,
        frozen_each=lambda s, o: [(shapes.supertuning_values(s, o), Kind.INT32)], saved=Saved.WITH_FROZEN),
    "lily": Method(  # a router in each layer; some layers share an A, all layers the Bs
        each=lambda s, o: [(o["num_B"], o["r"])], shared=shapes.lily,
        options={"r": 32, "stride_A": 1, "num_B": 2}, saved=Saved.WITH_COPIES, conv1d=False),
    "unilora": Method(  # one vector, which all modules share
        each=nothing, whole=lambda model, o: [(o["theta_d_length"],)], options={"r": 4, "theta_d_length": 256},
        frozen_each=lambda s, o: [(o["r"] * (s.k + s.m), kind) for kind in (Kind.INT64, Kind.ADAPTER)]),
    "tinylora": Method(
        each=nothing, together=shapes.tinylora, options={"r": 2, "u": 64, "weight_tying": 0.0},
        rank_within_matrix=False, frozen_each=frozen.tinylora, saved=Saved.WITH_FROZEN),
    "beft": Method(each=lambda s, o: [(1, s.m)], rank=None, targets="beft", conv1d=False),
    "ln_tuning": Method(
        each=lambda s, o: [(s.m,)], rank=None, targets="ln_tuning", roles=frozenset({Role.NORM}),
        trained_in=TrainedIn.BASE),
    "prompt_tuning": Method(whole=prompts.prompt, options=VIRTUAL_TOKENS, trained_in=TrainedIn.FLOAT32, rank=None),
    "multitask_prompt_tuning": Method(
        whole=prompts.multitask_prompt, options={**VIRTUAL_TOKENS, "num_tasks": 1, "num_ranks": 1},
        trained_in=TrainedIn.FLOAT32, rank=None),
    "p_tuning": Method(
        whole=prompts.p_tuning, saved_whole=prompts.prompt, trained_in=TrainedIn.FLOAT32, rank=None,
        options={
            **VIRTUAL_TOKENS, "encoder_hidden_size": None, "encoder_num_layers": 2,
            "encoder_reparameterization_type": "MLP"}),
    "prefix_tuning": Method(
        whole=prompts.prefix, saved_whole=prompts.prefix_saved, trained_in=TrainedIn.FLOAT32, rank=None,
        options={**VIRTUAL_TOKENS, "encoder_hidden_size": None, "prefix_projection": False}),
    "cartridge": Method(
        whole=prompts.cartridge, options={**VIRTUAL_TOKENS, "num_frozen_tokens": 1}, trained_in=TrainedIn.FLOAT32,
        frozen_whole=frozen.cartridge, saved=Saved.WITH_FROZEN, rank=None),
    "cpt": Method(  # beside the trained change it keeps the embeddings of the context tokens
        whole=prompts.prompt, options=VIRTUAL_TOKENS, trained_in=TrainedIn.FLOAT32, rank=None,
        frozen_whole=lambda sites, model, o: [(o["num_virtual_tokens"] * model.embedding_size, Kind.FLOAT32)]),
    "adaption_prompt": Method(
        whole=prompts.adaption_prompt, trained_in=TrainedIn.BASE, rank=None,
        options={"adapter_len": 10, "adapter_layers": None}),  # LLaMA-Adapter's length; all layers
    "trainable_tokens": Method(  # beside the trained rows it keeps them as they were
        whole=lambda model, o: [(prompts.tokens_given(model, o), model.embedding_size)], options={"token_indices": ""},
        frozen_whole=lambda sites, model, o: [(prompts.tokens_given(model, o) * model.embedding_size, Kind.ADAPTER)],
        rank=None),
}  # fmt: skip

NOT_DERIVED = ("xlora", "shadow", "frod", "adamss")
"""Types of PEFT 0.21 whose size depends on more than the model's config and their options."""
