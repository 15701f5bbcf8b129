"""Traces on disk, by workload and library versions, so that the same question is only run once.

An entry is written to a file of its own and then renamed, so that two processes never see half of one. Nothing that
goes wrong here stops an answer: an unreadable entry is run again, and a full disk is only reported.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peftbench.dryrun.trace.trace import VERSION, Trace, trace_from_json, trace_to_json
from peftbench.dryrun.workload import Workload, workload_to_json
from peftbench.libraries.versions import installed_versions

COMPRESSION = 1
"""gzip's fastest: a trace shrinks tenfold all the same."""
MOST_BYTES = 1 << 30
"""Of one entry, unpacked: a hundred thousand blocks take a few megabytes."""


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
        adapter = workload.recipe.adapter
        if adapter is not None and adapter.alpha is not None:  # a factor, which no memory depends on
            recipe = replace(workload.recipe, adapter=replace(adapter, alpha=None))
            workload = replace(workload, recipe=recipe)
        key = json.dumps(workload_to_json(workload), sort_keys=True) + self._versions
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json.gz"

    def read(self, workload: Workload) -> Trace | None:
        """The trace, or None where there is none that can be read."""
        path = self.path(workload)
        try:
            with gzip.open(path, "rb") as file:
                return _unsealed(file.read(MOST_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
            self.tell(f"the cached dry run {path.name} cannot be read ({type(error).__name__}): it is run again.")
            return None

    def write(self, workload: Workload, trace: Trace) -> None:
        """Keep the trace; where that fails, say so and go on."""
        path = self.path(workload)
        temporary = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(gzip.compress(_sealed(trace), COMPRESSION))
            os.replace(temporary, path)
        except OSError as error:
            self.tell(f"the dry run could not be cached in {self.folder}: {error.strerror}.")
            if temporary and os.path.exists(temporary):
                os.unlink(temporary)


def _sealed(trace: Trace) -> bytes:
    """The trace as JSON after its own digest: replaying trusts its numbers, so nobody else's are read."""
    text = json.dumps(trace_to_json(trace)).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _unsealed(content: bytes) -> Trace:
    """The inverse. Raises ValueError where a byte of it was changed."""
    digest, _, text = content.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError("it is not as it was written")
    return trace_from_json(json.loads(text))
