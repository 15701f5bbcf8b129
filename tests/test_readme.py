"""Every console block of README.md is run, and shows what the command prints; --update-golden rewrites them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from cli_runner import answer

from peftbench.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```console\n\$ (peftbench [^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", [command for command, _ in blocks()])
def test_a_console_block_is_what_the_command_prints(
    command: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    printed = answer(*shlex.split(command)[1:])
    if update_golden:
        text = README.read_text(encoding="utf-8")
        pattern = re.compile(rf"(^```console\n\$ {re.escape(command)}\n).*?(^```$)", re.MULTILINE | re.DOTALL)
        README.write_text(pattern.sub(lambda m: m[1] + printed + m[2], text), encoding="utf-8")
    assert dict(blocks())[command] == printed


def test_the_readme_opens_with_the_two_commands() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert commands[0].strip() == "pip install . && peftbench plan --model 8b --gpu t4"
    assert commands[1].strip() == "pip install -e '.[dev]' && pytest"


NOT_RUN_HERE = (
    "local", "run t4", "./config.json", "--from", "--dataset", "calibrat", "--check", "--dry-run", "timeline", "html",
    "-o ", "-smoke",
)  # fmt: skip
"""Cards, files and an exit code that this machine need not have, minutes of runs, and what writes a file."""


def test_every_command_of_the_readme_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands without output are run, or at least parsed: a renamed option would fail here."""
    monkeypatch.chdir(ROOT)
    listed = re.findall(r"^(peftbench [^#|\n]+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) > 8
    for command in listed:
        verb, *arguments = shlex.split(command)[1:]
        if any(word in command for word in NOT_RUN_HERE):
            found = main.get_command(click.Context(main), verb)
            assert found is not None
            found.make_context(verb, arguments)
        else:
            answer(verb, *arguments)
