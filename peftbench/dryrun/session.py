"""Ask for dry runs: from the cache where the question was asked before, else from a child process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from peftbench.allocator.settings import AllocatorSettings
from peftbench.base.cache_folder import cache_folder
from peftbench.base.errors import CatalogError
from peftbench.base.units import human_bytes
from peftbench.dryrun.cache import TraceCache
from peftbench.dryrun.extrapolate import Extrapolation, extrapolate
from peftbench.dryrun.runner import TIMEOUT_S, DryRunner, Progress
from peftbench.dryrun.trace.profile import profile_of
from peftbench.dryrun.trace.replay import DEFAULT, Replay, replay, replay_on_host
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import time_limit
from peftbench.memory import MemoryProfile


@dataclass(frozen=True, repr=False)
class DryRun:
    """A workload that was run on fake tensors, and what an allocator of a card makes of it."""

    workload: Workload
    trace: Trace
    gpu: GpuSpec | None
    settings: AllocatorSettings = DEFAULT

    def __repr__(self) -> str:
        """Its peaks and its end on the card; the trace has thousands of blocks."""
        name = f"DryRun({self.workload.recipe.method}"
        allocated, reserved = human_bytes(self.profile.allocated_bytes), human_bytes(self.replay.reserved_bytes)
        sizes = f"{allocated} allocated, {reserved} reserved"
        if self.gpu is None or self.on_card is None:
            return f"{name}: {sizes})"
        end = "runs out of memory" if self.on_card.failure else "comes through"
        return f"{name} on {self.gpu.name}: {sizes}, {end})"

    @cached_property
    def replay(self) -> Replay:
        """With as much memory as it takes."""
        return replay_on_host(self.trace) if self.workload.device == "host" else replay(self.trace, self.settings)

    @cached_property
    def on_card(self) -> Replay | None:
        """With what the card leaves to the allocator, where it may flush its cache or fail; None without a card."""
        if self.gpu is None or self.gpu.is_cpu:
            return None
        return replay(self.trace, self.settings, self.gpu.usable_bytes)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the run found out besides memory."""
        return self.trace.facts

    @cached_property
    def profile(self) -> MemoryProfile:
        """The demand, whatever the card has."""
        return profile_of(self.trace, self.replay, self.gpu, self.workload.recipe.parallelism)

    @cached_property
    def observed(self) -> MemoryProfile:
        """What a run shows on the card, whose cache is flushed before more than there is gets reserved.

        The demand where there is no card, or where it runs out of memory all the same.
        """
        card = self.on_card
        if card is None or card.failure:
            return self.profile
        return profile_of(self.trace, card, self.gpu, self.workload.recipe.parallelism)


_shared: DryRunner | None = None


@contextmanager
def one_child() -> Iterator[DryRunner]:
    """Let all sessions within it, as those of peftbench.dry_run(), share one child process: it imports torch once."""
    global _shared
    with DryRunner() as _shared:
        try:
            yield _shared
        finally:
            _shared = None


def _cache(tell: Callable[[str], None]) -> TraceCache | None:
    try:
        return TraceCache(cache_folder("dryrun"), tell)
    except CatalogError as error:
        tell(f"dry runs are not cached: {error.what} {error.hint}")
        return None


class DryRunSession:
    """Dry runs one after another, with one child process that is started when it is first needed."""

    def __init__(
        self, use_cache: bool = True, tell: Callable[[str], None] = lambda text: None, timeout_s: float | None = None
    ) -> None:  # fmt: skip
        self._runner = _shared or DryRunner()
        self._timeout_s = time_limit(timeout_s, TIMEOUT_S)
        self._cache = _cache(tell) if use_cache else None

    def __enter__(self) -> DryRunSession:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not _shared:
            self._runner.close()

    def trace(self, workload: Workload, progress: Progress = lambda share: None) -> Trace:
        """The trace of a workload. Raises Refused and DryRunError as DryRunner.run does."""
        found = self._cache.read(workload) if self._cache else None
        if found is None:
            found = self._runner.run(workload, progress, self._timeout_s)
            if self._cache:
                self._cache.write(workload, found)
        return found

    def extrapolate(
        self, workload: Workload, gpu: GpuSpec | None = None, progress: Progress = lambda share: None
    ) -> DryRun | Extrapolation:
        """A few layers stand for all where that proves right; the whole model otherwise."""
        found = extrapolate(workload, gpu, lambda few: self.trace(few, progress))
        return found or self.run(workload, gpu, progress=progress)

    def run(
        self,
        workload: Workload,
        gpu: GpuSpec | None = None,
        settings: AllocatorSettings = DEFAULT,
        progress: Progress = lambda share: None,
    ) -> DryRun:
        """Trace the workload, to be replayed on this card with these settings of the allocator."""
        return DryRun(workload, self.trace(workload, progress), gpu, settings)
