"""The promises about the tree: who imports whom, how large folders and files are, and what planning loads."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import peftbench

ROOT = Path(peftbench.__file__).parent
TESTS = Path(__file__).parent
MOST_FILES = 15
MOST_LINES = 350

RANKS = (
    ("base",),
    ("memory", "allocator"),
    ("inputs",),
    ("records", "catalog", "estimate"),
    ("libraries",),
    ("dryrun", "measure"),
    ("decide",),
    ("check", "recipes"),
    ("report",),
    ("cli", "__init__"),
    ("__main__",),
)
"""From the ground up. A module imports lower ranks and its own part of the house, not its neighbours of one rank."""

SUB_RANKS = {
    "inputs": (("schemes", "media"), ("card", "recipe"), ("model",), ("case",), ("comparison", "suite")),
    "estimate": (
        ("tape",), ("parts",), ("peft_types",), ("peft_forward",), ("forward",), ("replay",), ("sharding",),
        ("training", "inference"), ("time",),
    ),
    "dryrun": (
        ("workload",), ("fake",), ("trace",), ("parallel",), ("child", "runner", "cache", "extrapolate"),
        ("worker", "session"),
    ),
    "measure": (
        ("device", "child"), ("child_process", "quality", "latency", "own"), ("runner", "worker"),
        ("comparison", "doctor"),
    ),
    "decide": (
        ("recipe", "verdict", "card", "calibrated", "adapter_config"), ("from_options",), ("asked",), ("plan",),
        ("suite", "choose"),
    ),
    "check": (("groups",), ("speed", "memory"), ("runs",), ("calibration", "claims")),
    "report": (("format",), ("plan",), ("choose", "lists", "comparisons"), ("timeline", "runs")),
    "cli": (("progress", "signals"), ("ask",), ("answer",)),
}  # fmt: skip
"""The same within a part, from the ground up."""

TORCH_AND_KIN = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "pynvml", "psutil"}
HEAVY = {
    *TORCH_AND_KIN, "numpy", "pandas", "tabulate", "yaml", "huggingface_hub", "plotly", "shutil",
    "subprocess", "tempfile", "urllib.request",
}  # fmt: skip


@lru_cache(maxsize=1)
def sources() -> dict[Path, ast.Module]:
    """Every file of the package, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}


def name_of(path: Path) -> str:
    """"estimate.forward.loss"; a folder's own file is called as the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, inside functions too, but not what only the type checker sees."""
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@lru_cache(maxsize=1)
def arrows() -> list[tuple[str, str]]:
    """Which module of the package imports which."""
    names = {name_of(path) for path in sources()}
    found = []
    for path, tree in sources().items():
        for imported in imports(tree):
            package, _, rest = imported.partition(".")
            if package == "peftbench":
                target = rest if rest in names else rest.rpartition(".")[0]
                found.append((name_of(path), target if target in names else "__init__"))
    return found


def rank_in(order: tuple[tuple[str, ...], ...], part: str) -> int | None:
    """The rank of a part of the house, or of a part within one."""
    return next((rank for rank, parts in enumerate(order) if part in parts), None)


def climbs(importer: str, imported: str) -> bool:
    """Whether the import does not go down: to a higher rank, or to a neighbour of the same one."""
    own, other = importer.split("."), imported.split(".")
    if own[0] != other[0]:
        return rank_in(RANKS, other[0]) >= rank_in(RANKS, own[0])  # type: ignore[operator]
    order = SUB_RANKS.get(own[0])
    if order is None or len(own) < 2 or len(other) < 2 or own[1] == other[1]:
        return False
    verbs = len(order)
    above, below = (rank_in(order, part[1]) for part in (own, other))
    return (verbs if below is None else below) >= (verbs if above is None else above)


def test_a_module_imports_lower_ranks_only() -> None:
    to_itself = {("cli", "__init__")}  # the command prints the package's version
    found = [arrow for arrow in arrows() if arrow not in to_itself and climbs(*arrow)]
    assert not found


def test_there_are_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in arrows():
        graph.setdefault(importer, set()).add(imported)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_a_climbing_import_is_seen() -> None:
    assert climbs("estimate.tape.ledger", "decide.verdict") and climbs("dryrun.session", "measure.runner")
    assert climbs("estimate.tape.ledger", "estimate.forward.loss") and climbs("decide.choose.fit", "decide.suite.cases")
    assert not climbs("decide.verdict", "estimate.training")
    assert not climbs("estimate.training", "estimate.forward.loss")


def test_only_dryrun_and_measure_import_torch_and_its_kin() -> None:
    for path, tree in sources().items():
        if name_of(path).split(".")[0] not in ("dryrun", "measure", "libraries"):
            assert not {module.split(".")[0] for module in imports(tree)} & TORCH_AND_KIN, path


def test_measuring_knows_neither_the_guess_nor_the_catalogue() -> None:
    unknown = ("estimate", "catalog", "dryrun")
    assert not [arrow for arrow in arrows() if arrow[0].startswith("measure.") and arrow[1].split(".")[0] in unknown]


def test_every_part_of_the_house_has_a_rank() -> None:
    parts = {name_of(path).split(".")[0] for path in sources()}
    assert {part for part in parts if rank_in(RANKS, part) is None} == set()


SCREEN = "base.screen"


def ways_out(tree: ast.AST) -> Iterator[int]:
    """Lines that could write to a terminal: print and click.echo by any name, and writing to a standard stream."""
    for node in ast.walk(tree):
        attribute = getattr(node, "attr", "")
        to_stream = attribute in ("write", "writelines", "buffer")
        if (
            (isinstance(node, ast.Name) and node.id == "print")
            or "echo" in attribute
            or (to_stream and getattr(getattr(node, "value", None), "attr", "").strip("_") in ("stdout", "stderr"))
            or (isinstance(node, ast.ImportFrom) and node.module == "click" and "echo" in ast.unparse(node))
        ):
            yield node.lineno


def test_one_module_writes_to_the_terminal() -> None:
    """It makes text from outside visible and encodable; two children answer on a pipe of their own."""
    for path, tree in sources().items():
        if name_of(path) != SCREEN:
            assert list(ways_out(tree)) == [], path


def test_a_way_out_is_seen() -> None:
    seen = ("print(1)", "f(tell=print)", "click.echo(1)", "sys.stderr.write(x)", "sys.stdout.buffer.write(b)",
            "from click import echo")  # fmt: skip
    assert all(list(ways_out(ast.parse(written))) for written in seen)
    assert list(ways_out(ast.parse("file.write(x); show(x); sys.stdout.isatty()"))) == []


ROWS = {"model_type": ("inputs.model.family", "libraries.model", "libraries.task")}
"""Names that decide nothing, because a row does: where each may be looked up all the same.

libraries asks the registry of transformers for a class of this name.
"""


def decisions_by(name: str, tree: ast.AST) -> Iterator[int]:
    """Lines that compare the name, look it up in a table, or ask how it begins or ends."""

    def is_it(*nodes: ast.AST) -> bool:
        return any(getattr(node, "attr", getattr(node, "id", None)) == name for node in nodes)

    for node in ast.walk(tree):
        method = node.func if isinstance(node, ast.Call) else None
        if (
            (isinstance(node, ast.Compare) and not isinstance(node.ops[0], (ast.Is, ast.IsNot))
                and is_it(node.left, *node.comparators))
            or (isinstance(node, ast.Match) and is_it(node.subject))
            or (isinstance(node, ast.Subscript) and is_it(node.slice))
            or (isinstance(method, ast.Attribute) and method.attr in ("startswith", "endswith") and is_it(method.value))
            or (isinstance(node, ast.Call) and isinstance(method, ast.Attribute) and method.attr == "get"
                and is_it(*node.args))
        ):  # fmt: skip
            yield node.lineno


@pytest.mark.parametrize("name", ROWS)
def test_a_row_decides_and_not_a_name(name: str) -> None:
    for path, tree in sources().items():
        if name_of(path) not in ROWS[name]:
            assert list(decisions_by(name, tree)) == [], path


def test_a_decision_by_name_is_seen() -> None:
    seen = ("a.kind == 'x'", "kind in T", "kind.startswith('x')", "T[a.kind]", "T.get(kind)", "match kind:\n case 1: 0")
    assert all(list(decisions_by("kind", ast.parse(written))) == [1] for written in seen)
    assert list(decisions_by("kind", ast.parse("f'{a.kind}'; g(kind); a.kind.x == 1; kind is None"))) == []


def test_folders_and_files_are_small_and_a_file_says_what_it_is_for() -> None:
    for path, tree in sources().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MOST_LINES and (lines == 0 or ast.get_docstring(tree)), path
    for house in (ROOT, TESTS):
        folders = [place for place in house.rglob("*") if place.is_dir() and place.name != "__pycache__"]
        for folder in (house, *folders):
            assert sum(each.is_file() for each in folder.iterdir()) <= MOST_FILES, folder


def loaded_by(*arguments: str) -> set[str]:
    """The modules that the command loads in a fresh interpreter, beyond those that click brings on some Pythons."""
    code = (
        "import click, sys\n"
        "own = set(sys.modules)\n"
        "from peftbench.cli import main\n"
        "try: main(sys.argv[1:], prog_name='peftbench')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('\\n' + ' '.join(set(sys.modules) - own), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--model", "8b", "--gpu", "t4"),
        ("plan", "--model", "8b", "--gpu", "t4", "--method", "qlora", "--sequence-length", "4096"),
        ("plan", "--model", "8b"),
        ("plan", "--model", "8b", "--gpu", "t4", "--format", "json"),
        ("plan", "--model", "8b", "--gpu", "l4", "--task", "inference", "--method", "qlora"),
    ],
)
def test_planning_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & HEAVY


def test_an_empty_folder_of_calibrations_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTBENCH_CALIBRATION", str(tmp_path))
    asked = ("plan", "--model", "8b", "--gpu", "t4")
    assert "peftbench.records.calibration" not in loaded_by(*asked)
    (tmp_path / "l4.json").touch()
    assert "peftbench.records.calibration" in loaded_by(*asked)


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = "import sys, peftbench; print([m for m in sys.modules if m.startswith('peftbench.')])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


QUANT_TYPE_ASKED = re.compile(r"quant_type\s*(==|!=|(not )?in\b)")


def test_only_the_files_of_schemes_know_a_scheme_by_name() -> None:
    for path in sources():
        if path.parent.name != "schemes":
            assert not QUANT_TYPE_ASKED.search(path.read_text(encoding="utf-8")), path
    assert QUANT_TYPE_ASKED.search('q.quant_type in ("nf4",)') and not QUANT_TYPE_ASKED.search("quant_type=nf4")


# ── the symbolic tape ───────────────────────────────────────────────────────────────────────────────────

TAPE = [path for folder in ("tape", "forward", "peft_forward") for path in (ROOT / "estimate" / folder).glob("*.py")]


def rebound_parameters(tree: ast.AST) -> Iterator[str]:
    """Parameters that their own function assigns to or deletes, in whatever syntax."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = function.args
        names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        names |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a}
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and node.id in names:
                yield f"{function.name} rebinds {node.id}, line {node.lineno}"


def test_no_function_on_the_tape_rebinds_a_parameter() -> None:
    """Python versions differ in how long a caller's argument lives; see estimate/tape/autograd.py."""
    for path in TAPE:
        assert list(rebound_parameters(ast.parse(path.read_text(encoding="utf-8")))) == [], path


def test_the_rule_is_seen_where_it_is_broken() -> None:
    broken = "def f(x, *rest):\n    x = x + 1\n    for rest in x: pass\n    del x\n    (x := 2)\n"
    assert len(list(rebound_parameters(ast.parse(broken)))) == 4
