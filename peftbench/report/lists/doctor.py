"""What `peftbench doctor` found, as a table and for a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from peftbench.measure.doctor import Finding
from peftbench.report.format.table import Table


def doctor_table(findings: Sequence[Finding]) -> Table:
    """One row a finding; what mends it stands behind what is wrong."""
    rows = [(f.name, f.status, f"{f.detail} → {f.remedy}" if f.remedy else f.detail) for f in findings]
    return Table("", ("what", "status", "found"), rows, "lll")


def doctor_data(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """The same for a program, the remedy apart."""
    return [asdict(finding) for finding in findings]


def doctor_note(findings: Sequence[Finding]) -> str:
    """How many are in order."""
    in_order = sum(finding.status == "ok" for finding in findings)
    if in_order == len(findings):
        return f"all {in_order} are in order."
    return f"{in_order} of {len(findings)} are in order. `plan` needs none of the others."
