"""PEFT types, one row each: options with PEFT's defaults, the tensors it adds, and what is special about it.

Read from PEFT 0.21: `tuners/<type>/{config,layer,model}.py`. tests/oracles/weights/test_peft_counts.py holds each row
to get_peft_model. To add a type, add a row, and a function in adapter_shapes if no other type has its shapes.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from peftbench.estimate.peft_types import frozen, prompts, shapes
from peftbench.estimate.peft_types.frozen import Frozen, Sites
from peftbench.estimate.peft_types.shapes import Options, Shapes, Site
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.model.weights import Role

Value = int | float | str | bool | None

MATRICES = frozenset({Role.LINEAR, Role.LM_HEAD})
VIRTUAL_TOKENS = {"num_virtual_tokens": 20}
"""PEFT has no default; the examples in its documentation use 20."""


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
    each: Callable[[Site, Options], Shapes] | None = None
    """Tensors of each targeted module; None for types that have no target modules."""
    shared: Callable[[Site, Options], Shapes] = shapes.nothing
    """Tensors that all modules of one name share."""
    whole: Callable[[ModelSpec, Options], Shapes] = prompts.nothing
    """Tensors that the model has once."""
    frozen_each: Callable[[Site, Options], Frozen] = frozen.none_each
    frozen_whole: Callable[[Sites, ModelSpec, Options], Frozen] = frozen.none_whole
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
        each=shapes.lora,
        options={
            "r": 8, "lora_alpha": 8, "lora_bias": False, "use_dora": False, "use_rslora": False, "lora_dropout": 0.0,
        },
        roles=MATRICES | {Role.EMBEDDING, Role.ROUTER, Role.EXPERTS},
    ),
    "adalora": Method(
        each=shapes.adalora, options={"init_r": 12, "lora_alpha": 8}, rank="init_r", targets="adalora"
    ),
    "hira": Method(each=shapes.low_rank, options={"r": 32}),
    "loha": Method(each=shapes.loha, options={"r": 8}, conv1d=False),
    "lokr": Method(
        each=shapes.lokr,
        options={"r": 8, "decompose_both": False, "decompose_factor": -1},
        rank_within_matrix=False,
        conv1d=False,
    ),
    "oft": Method(
        each=shapes.oft,
        options={"r": 0, "oft_block_size": 32, "block_share": False},
        frozen_each=frozen.oft,
        rank_within_matrix=False,
        conv1d=False,
    ),
    "boft": Method(
        each=shapes.boft,
        options={"boft_block_size": 4, "boft_block_num": 0},
        frozen_each=frozen.boft,
        rank=None,
        conv1d=False,
    ),
    "ia3": Method(each=shapes.ia3, rank=None, targets="ia3"),
    "vera": Method(
        each=shapes.vera,
        options={"r": 256},
        frozen_whole=frozen.vera,
        saved=Saved.WITH_FROZEN,
        targets="vera",
        rank_within_matrix=False,
    ),
    "pvera": Method(
        each=shapes.pvera,
        options={"r": 256},
        frozen_whole=frozen.pvera,
        saved=Saved.WITH_FROZEN,
        targets="vera",
        rank_within_matrix=False,
    ),
    "randlora": Method(
        each=shapes.randlora,
        options={"r": 32},
        frozen_whole=frozen.randlora,
        saved=Saved.WITH_COPIES,
        rank_within_matrix=False,
    ),
    "fourierft": Method(
        each=shapes.frequencies, options={"n_frequency": 1000}, rank=None, targets="fourierft"
    ),
    "waveft": Method(each=shapes.frequencies, options={"n_frequency": 2592}, rank=None, targets="fourierft"),
    "glora": Method(
        each=shapes.glora,
        options={"r": 8},
        frozen_each=frozen.glora,
        saved=Saved.WITH_FROZEN,
        conv1d=False,
        subclasses=False,
    ),
    "hra": Method(each=shapes.hra, options={"r": 8}, conv1d=False),
    "miss": Method(each=shapes.miss, options={"r": 64}, conv1d=False),
    "road": Method(
        each=shapes.road, options={"variant": "road_1", "group_size": 64}, rank=None, conv1d=False
    ),
    "shira": Method(
        each=shapes.shira,
        options={"r": 32},
        frozen_each=frozen.shira,
        saved=Saved.WITH_FROZEN,
        targets="vera",
        conv1d=False,
    ),
    "c3a": Method(each=shapes.c3a, options={"block_size": 256}, rank=None, targets="fourierft", conv1d=False),
    "delora": Method(
        each=shapes.delora,
        options={"r": 8},
        frozen_each=frozen.delora,
        saved=Saved.WITH_FROZEN,
        conv1d=False,
    ),
    "gralora": Method(each=shapes.gralora, options={"r": 32, "gralora_k": 2, "hybrid_r": 0}),
    "deft": Method(each=shapes.deft, options={"r": 8, "para": False}),
    "psoft": Method(each=shapes.psoft, options={"r": 32}, frozen_each=frozen.psoft, conv1d=False),
    "peanut": Method(each=shapes.peanut, options={"r": 32, "depth": 0}, conv1d=False),
    "osf": Method(
        each=shapes.osf,
        options={"effective_rank": None},
        frozen_each=frozen.osf,
        targets="osf",
        rank=None,
        conv1d=False,
    ),
    "vblora": Method(
        each=shapes.vblora,
        options={"r": 4, "num_vectors": 256, "vector_length": 256},
        whole=prompts.vector_bank,
        targets="adalora",
    ),
    "poly": Method(
        each=shapes.poly, options={"r": 8, "n_tasks": 1, "n_skills": 4, "n_splits": 1}, conv1d=False
    ),
    "supertuning": Method(
        each=shapes.supertuning,
        options={"r": None, "sparsity": 0.99},
        frozen_each=frozen.supertuning,
        saved=Saved.WITH_FROZEN,
        conv1d=False,
    ),
    "lily": Method(
        each=shapes.lily,
        options={"r": 32, "num_B": 2},
        shared=shapes.lily_shared,
        saved=Saved.WITH_COPIES,
        conv1d=False,
    ),
    "unilora": Method(
        each=shapes.nothing,
        options={"r": 4, "theta_d_length": 256},
        whole=prompts.theta,
        frozen_each=frozen.unilora,
    ),
    "tinylora": Method(
        each=shapes.tinylora,
        options={"r": 2, "u": 64},
        frozen_each=frozen.tinylora,
        saved=Saved.WITH_FROZEN,
        rank_within_matrix=False,
    ),
    "beft": Method(each=shapes.beft, rank=None, targets="beft", conv1d=False),
    "ln_tuning": Method(
        each=shapes.ln_tuning,
        trained_in=TrainedIn.BASE,
        targets="ln_tuning",
        roles=frozenset({Role.NORM}),
        rank=None,
    ),
    "prompt_tuning": Method(
        whole=prompts.prompt, options=VIRTUAL_TOKENS, trained_in=TrainedIn.FLOAT32, rank=None
    ),
    "multitask_prompt_tuning": Method(
        whole=prompts.multitask_prompt,
        options={**VIRTUAL_TOKENS, "num_tasks": 1, "num_ranks": 1},
        trained_in=TrainedIn.FLOAT32,
        rank=None,
    ),
    "p_tuning": Method(
        whole=prompts.p_tuning,
        options={
            **VIRTUAL_TOKENS,
            "encoder_hidden_size": None,
            "encoder_num_layers": 2,
            "encoder_reparameterization_type": "MLP",
        },
        saved_whole=prompts.prompt,
        trained_in=TrainedIn.FLOAT32,
        rank=None,
    ),
    "prefix_tuning": Method(
        whole=prompts.prefix,
        options={**VIRTUAL_TOKENS, "encoder_hidden_size": None, "prefix_projection": False},
        saved_whole=prompts.prefix_saved,
        trained_in=TrainedIn.FLOAT32,
        rank=None,
    ),
    "cartridge": Method(
        whole=prompts.cartridge,
        options={**VIRTUAL_TOKENS, "num_frozen_tokens": 1},
        frozen_whole=frozen.cartridge,
        saved=Saved.WITH_FROZEN,
        trained_in=TrainedIn.FLOAT32,
        rank=None,
    ),
    "cpt": Method(
        whole=prompts.prompt,
        options=VIRTUAL_TOKENS,
        frozen_whole=frozen.cpt,
        trained_in=TrainedIn.FLOAT32,
        rank=None,
    ),
    "adaption_prompt": Method(
        whole=prompts.adaption_prompt,
        options={"adapter_len": 10, "adapter_layers": None},  # LLaMA-Adapter's length; all layers
        trained_in=TrainedIn.BASE,
        rank=None,
    ),
    "trainable_tokens": Method(
        whole=prompts.trainable_tokens,
        options={"token_indices": ""},
        frozen_whole=frozen.trainable_tokens,
        rank=None,
    ),
}

NOT_DERIVED = ("xlora", "shadow", "frod", "adamss")
"""Types of PEFT 0.21 whose size depends on more than the model's config and their options."""
