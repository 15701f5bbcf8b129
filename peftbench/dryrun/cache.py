"""Traces on disk, by workload and library versions, so that the same question is only run once.

Two processes never see half of an entry. Nothing that goes wrong here stops an answer: what is no entry, be it a folder
or a pipe, is run again, and a full disk is only reported.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peftbench.base.errors import CatalogError
from peftbench.base.files import open_regular, write_whole
from peftbench.dryrun.trace.trace import UNREADABLE, VERSION, Trace, trace_from_json, trace_to_json
from peftbench.dryrun.workload import Workload, workload_to_json
from peftbench.libraries.versions import installed_versions

COMPRESSION = 1
"""gzip's fastest: a trace shrinks tenfold all the same."""
MOST_BYTES = 1 << 28
"""An entry, unpacked: a hundred thousand blocks take a few megabytes."""


def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """A digest of the whole package's source: an entry that another version of it wrote is not used."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class TraceCache:
    """A folder of traces. `tell` is given one sentence where the folder cannot be used."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.tell = tell
        self._versions = json.dumps([VERSION, installed_versions(), code_digest()], sort_keys=True)

    def path(self, workload: Workload) -> Path:
        """Where this workload's trace is, or would be."""
        key = json.dumps(workload_to_json(_as_traced(workload)), sort_keys=True) + self._versions
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json.gz"

    def read(self, workload: Workload) -> Trace | None:
        """The trace, or None where there is none that can be read."""
        path = self.path(workload)
        if not os.path.lexists(path):
            return None
        try:
            with open_regular(path, "") as file, gzip.open(file) as unpacked:
                content = unpacked.read(MOST_BYTES)
            digest, _, text = content.partition(b"\n")
            if digest != _digest(path, text):
                raise ValueError("the content is not that of this workload")
            return trace_from_json(json.loads(text))
        except (CatalogError, OSError, EOFError, zlib.error, *UNREADABLE) as error:
            why = error.what.removesuffix(".") if isinstance(error, CatalogError) else type(error).__name__
            self.tell(f"the cached dry run {path.name} cannot be read ({why}): it is run again.")
            return None

    def write(self, workload: Workload, trace: Trace) -> None:
        """Keep the trace; where that fails, say so and go on."""
        path = self.path(workload)
        text = json.dumps(trace_to_json(trace)).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, gzip.compress(_digest(path, text) + b"\n" + text, COMPRESSION))
        except OSError as error:
            self.tell(f"the dry run could not be cached in {self.folder}: {error.strerror}.")


def _as_traced(workload: Workload) -> Workload:
    """The workload without what no trace depends on: a factor, how GPUs are connected, and how many copies DDP has."""
    recipe = workload.recipe
    adapter, parallelism = recipe.adapter, recipe.parallelism
    if adapter is not None:
        adapter = replace(adapter, alpha=None)
    gpus = 2 if parallelism.strategy == "ddp" and parallelism.gpus > 1 else parallelism.gpus
    parallelism = replace(parallelism, gpus=gpus, nodes=1, link=None)
    return replace(workload, recipe=replace(recipe, adapter=adapter, parallelism=parallelism))


def _digest(path: Path, text: bytes) -> bytes:
    """Equal for the same trace of the same workload only: an entry that was copied or changed is not used."""
    return hashlib.sha256(path.name.encode() + text).hexdigest().encode()
