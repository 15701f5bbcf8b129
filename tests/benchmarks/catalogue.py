"""Writes the two files of the catalogue: the checkpoints, one a line, and the names with the place of each line.

    python tests/benchmarks/catalogue.py add CONFIGS.json [ALIASES.json [DOWNLOADS.json]]
    python tests/benchmarks/catalogue.py names                # after a line was changed by hand

CONFIGS.json is a list of objects as `{"id": …, "kind": …, "transformers_class": …, "config": {…}, "num_parameters":
{"built": …, "published": …}, "evidence": …, "aliases": […], "quantized_repos": […], "downloads_30d": …}`. ALIASES.json
maps an id to further `aliases` and `quantized_repos`, DOWNLOADS.json a repository to its downloads in 30 days.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from peftbench.catalog.checkpoints.entry import CHECKPOINTS, NAMES
from peftbench.catalog.checkpoints.quantized import copy_of

Entry = dict[str, Any]
SIZE = re.compile(r"(?<![a-z\d.])\d+(?:\.\d+)?(?:x\d+)?[bm](?![a-z\d])")
"""What people call a size, in a lower-case name: 8b, 0.6b, 8x7b, 135m."""
TUNED = re.compile(r"-(instruct|chat|base|it|pt|hf)(?![a-z\d])")
KEEPS_ITS_SIZE = 3
"""A checkpoint keeps the size that stands for it while it has a third of the most downloads of that size."""


def read_checkpoints() -> dict[str, Entry]:
    """The checkpoints by id, in the order of the file."""
    with open(CHECKPOINTS, encoding="utf-8") as file:
        return {entry["id"]: entry for entry in map(json.loads, file)}


def write_catalogue(entries: dict[str, Entry]) -> None:
    """Both files."""
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries.values()]
    with open(CHECKPOINTS, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
    with open(NAMES, "w", encoding="utf-8", newline="\n") as file:
        file.write("".join(names_of(lines)))


def names_of(lines: list[str]) -> Iterator[str]:
    """The lines of the names: a name in lower case, and the byte at which the line of its checkpoint begins.

    Ids come first, then what means the same, then quantized copies: the first of two equal names is the one found.
    """
    places, entries = [0], [json.loads(line) for line in lines]
    for line in lines:
        places.append(places[-1] + len(line.encode()))
    seen: set[str] = set()
    for kind in ("id", "aliases", "quantized"):
        for entry, place in zip(entries, places, strict=False):
            for name in [entry["id"]] if kind == "id" else entry[kind]:
                if name.lower() not in seen:
                    seen.add(name.lower())
                    yield f"{name.lower()}\t{place}\n"


def entry_of(fact: Entry) -> Entry:
    """A checkpoint as the catalogue writes it."""
    count, config = fact["num_parameters"], fact["config"]
    if not fact["kind"].startswith("causal"):  # else transformers' causal language model of that type
        config = {"architectures": [fact["transformers_class"]], **config}
    return {
        "id": fact["id"], "kind": fact["kind"], "transformers_class": fact["transformers_class"],
        "num_parameters": count["built"], "published": count["published"],
        "difference": count["difference_is"] if count["published"] not in (None, count["built"]) else "",
        "downloads": fact["downloads_30d"], "evidence": fact["evidence"], "doubts": fact.get("notes", []),
        "aliases": fact["aliases"], "quantized": [*fact["quantized_repos"], *fact.get("gguf_repos", [])],
        "config": config,
    }  # fmt: skip


def merged(known: Entry | None, new: Entry) -> Entry:
    """A checkpoint that was known keeps its names, and its config where that makes as many parameters."""
    if known is None:
        return new
    config = known["config"] if known["num_parameters"] == new["num_parameters"] else new["config"]
    names = {key: [*known[key], *new[key]] for key in ("aliases", "quantized")}
    return {**new, "downloads": max(known["downloads"], new["downloads"]), **names, "config": config}


def add_names(entries: dict[str, Entry], aliases: dict[str, dict[str, list[str]]]) -> None:
    """What means the same as a checkpoint, and its quantized copies."""
    for name, more in aliases.items():
        entries[name]["aliases"] += more["aliases"]
        entries[name]["quantized"] += more["quantized_repos"]


def tidy_names(entries: dict[str, Entry]) -> None:
    """Each name once and of its own kind: no id as an alias, no copy whose name does not say how it is stored."""
    ids = {name.lower() for name in entries}
    taken: set[str] = set(ids)
    for entry in entries.values():
        for key in ("aliases", "quantized"):
            fresh = {name.lower(): name for name in reversed(entry[key]) if name.lower() not in taken}
            entry[key] = [name for low, name in reversed(fresh.items()) if key == "aliases" or copy_of(low)]
            taken |= {name.lower() for name in entry[key]}


def add_downloads(entries: dict[str, Entry], downloads: dict[str, int]) -> None:
    """Those of a checkpoint and of all that means the same, its twin before or after the tuning included."""
    twins: dict[str, set[str]] = {}
    for entry in entries.values():
        names = {entry["id"], *(name for name in entry["aliases"] if "/" in name)}
        twins.setdefault(TUNED.sub("", entry["id"].lower()), set()).update(names)
    for entry in entries.values():
        names = twins[TUNED.sub("", entry["id"].lower())]
        entry["downloads"] = max(entry["downloads"], sum(downloads.get(name, 0) for name in names))


def name_sizes(entries: dict[str, Entry]) -> None:
    """Let each size stand for a text model: the one that had the name while it is still used, else the most used."""
    by_size: dict[str, list[Entry]] = {}
    holders = {alias: entry for entry in entries.values() for alias in entry["aliases"] if SIZE.fullmatch(alias)}
    for entry in entries.values():
        for size in SIZE.findall(entry["id"].lower().rpartition("/")[2])[:1]:
            if entry["kind"].startswith("causal"):
                by_size.setdefault(size, []).append(entry)
        entry["aliases"] = [alias for alias in entry["aliases"] if not SIZE.fullmatch(alias)]
    for size in {**holders, **by_size}:
        named, holder = by_size.get(size, []), holders.get(size)
        most = max(named, key=lambda entry: int(entry["downloads"]), default=holder)
        assert most is not None
        keeps = holder is not None and KEEPS_ITS_SIZE * holder["downloads"] >= most["downloads"]
        (holder if keeps and holder else most)["aliases"].insert(0, size)


def add(configs: str, aliases: str = "", downloads: str = "") -> None:
    """Take the checkpoints of a file into the catalogue."""
    entries = read_checkpoints()
    for fact in _json(configs):
        entries[fact["id"]] = merged(entries.get(fact["id"]), entry_of(fact))
    add_names(entries, _json(aliases) if aliases else {})
    tidy_names(entries)
    add_downloads(entries, _json(downloads) if downloads else {})
    name_sizes(entries)
    write_catalogue(entries)
    print(f"{len(entries)} checkpoints in {CHECKPOINTS}")


def _json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"] and len(sys.argv) in (3, 4, 5):
        add(*sys.argv[2:])
    elif sys.argv[1:] == ["names"]:
        write_catalogue(read_checkpoints())
    else:
        sys.exit(__doc__)
