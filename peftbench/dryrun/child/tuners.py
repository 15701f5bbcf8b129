"""Stand-ins for the few pieces of PEFT that look into tensors: fake ones have a shape and nothing to look at."""

from __future__ import annotations

import contextlib
import functools
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from peftbench.dryrun.child.sparse import Sparse


@functools.cache
def stand_in_for_values() -> None:
    """Exchange them in this process, which only does dry runs."""
    changes = {"tuners.boft.layer": _boft, "tuners.frod.layer": _frod, "tuners.adamss.layer": _adamss}
    for place, change in changes.items():
        with contextlib.suppress(ModuleNotFoundError):  # a type that the installed PEFT does not have yet
            change(import_module(f"peft.{place}"))
    # what the adapters that X-LoRA mixes hold does not matter: their shapes are in their own adapter_config.json
    loading: Any = import_module("peft.utils.save_and_load")
    loading.load_peft_weights = lambda *_, **__: {}
    torch.sparse_coo_tensor = Sparse  # type: ignore[assignment]
    fake: Any = FakeTensor
    real_data: Any = torch.Tensor.data

    def set_data(self: Any, data: Any) -> None:
        """`parameter.data = …` moves a parameter to where the new data is; a fake one has to be moved."""
        real_data.__set__(self, data)
        self.fake_device = data.device

    fake.data = property(real_data.__get__, set_data)


def _boft(layer: Any) -> None:
    """Permutations are laid out element by element; the kernel of a card is compiled when it is first used.

    Without that kernel PEFT builds the same matrix out of one small tensor a block, which takes minutes to trace.
    """
    layer.BOFTLayer.block_butterfly_perm = lambda self, n, *_: torch.arange(n)
    layer.BOFTLayer.perm2mat = lambda self, indices: torch.zeros((len(indices), len(indices)))

    def forward(blocks: torch.Tensor) -> list[torch.Tensor]:
        number, count, size, _ = blocks.shape
        return [blocks.new_empty((number, count * size, count * size))]

    layer._FBD_CUDA = SimpleNamespace(forward=forward, backward=lambda gradient, blocks: [torch.empty_like(blocks)])


def _frod(layer: Any) -> None:
    """The size of the sparse matrix is read from a tensor: it is that of V. Otherwise PEFT's function, line by line."""

    def tensors(self: Any, adapter: str, *, device: torch.device, dtype: torch.dtype) -> tuple[Any, ...]:
        left = self.frod_U[adapter].to(device=device, dtype=dtype)
        right = self.frod_V[adapter].to(device=device, dtype=dtype)
        indices = self.frod_s_indices[adapter].to(device=device, dtype=torch.long)
        values = self.frod_lambda_s_values[adapter].to(device=device, dtype=dtype)
        diagonal = self.frod_lambda_l[adapter].to(device=device, dtype=dtype)
        return left, right, Sparse(indices, values, tuple(right.shape)).coalesce(), diagonal

    layer.Linear._get_frod_tensors = tensors


def _adamss(layer: Any) -> None:
    """scikit-learn clusters the rows of the weights: here into clusters of equal size, which add up to the same."""

    def clusters(rows: torch.Tensor, number: int, *_: object) -> tuple[list[torch.Tensor], int]:
        number = min(number, rows.shape[0])
        return list(torch.arange(rows.shape[0]).tensor_split(number)), number

    layer.clustering_Z = clusters
    layer.seg_locations = lambda clusters: clusters
