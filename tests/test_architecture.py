"""The promises about the tree: who imports whom, what planning loads, and one rule of the symbolic tape."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peftbench

ROOT = Path(peftbench.__file__).parent

RANKS = {
    "errors": 0, "units": 0,
    "spec": 1, "memory": 1, "paired": 1, "environment": 1, "cache_folder": 1,
    "catalog": 2, "estimate": 2, "suite": 2, "record": 2, "comparison_record": 2,
    "dryrun": 3, "measure": 3, "record_file": 3, "calibration_file": 3,
    "decide": 4,
    "check": 5, "recipes": 5,
    "report": 6,
    "cli": 7, "__init__": 7, "__main__": 8,
}  # fmt: skip
"""A module imports lower ranks and its own folder; `units` also `errors`, `memory` also nothing of `spec`."""

TORCH_AND_KIN = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "pynvml", "psutil"}
HEAVY = {
    *TORCH_AND_KIN, "numpy", "pandas", "tabulate", "yaml", "huggingface_hub", "plotly", "shutil",
    "subprocess", "tempfile", "urllib.request",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too, but not what only the type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
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


def home(module: str) -> str:
    """The part of the house: "estimate" for peftbench.estimate.loss."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def home_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_lower_ranks_only(path: Path) -> None:
    own = home_of(path)
    for module in imports(path):
        if module.split(".")[0] != "peftbench":
            continue
        other = home(module) if home(module) in RANKS else "__init__"
        same_house = other == own or (own, other) == ("units", "errors") or (own, other) == ("cli", "__init__")
        assert same_house or RANKS[other] < RANKS[own], f"{own} (rank {RANKS[own]}) imports {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_dryrun_and_measure_import_torch_and_its_kin(path: Path) -> None:
    if home_of(path) not in ("dryrun", "measure"):
        assert not {module.split(".")[0] for module in imports(path)} & TORCH_AND_KIN


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_measuring_knows_neither_the_guess_nor_the_catalogue(path: Path) -> None:
    if home_of(path) == "measure":
        assert not {home(m) for m in imports(path) if m.startswith("peftbench.")} & {
            "estimate",
            "catalog",
            "dryrun",
        }


def test_every_part_of_the_house_has_a_rank() -> None:
    assert {home_of(path) for path in modules()} <= set(RANKS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_is_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 350


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


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = "import sys, peftbench; print([m for m in sys.modules if m.startswith('peftbench.')])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


# ── the symbolic tape ───────────────────────────────────────────────────────────────────────────────────

TAPE = [
    p
    for p in (ROOT / "estimate").glob("*.py")
    if p.stem in ("modules", "attention", "layers", "loss") or p.stem.startswith("adapted")
]


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


@pytest.mark.parametrize("path", TAPE, ids=lambda p: p.name)
def test_no_function_on_the_tape_rebinds_a_parameter(path: Path) -> None:
    """Python versions differ in how long a caller's argument lives; see estimate/autograd.py."""
    assert list(rebound_parameters(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_rule_is_seen_where_it_is_broken() -> None:
    broken = "def f(x, *rest):\n    x = x + 1\n    for rest in x: pass\n    del x\n    (x := 2)\n"
    assert len(list(rebound_parameters(ast.parse(broken)))) == 4
