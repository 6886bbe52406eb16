"""Findings as text with the place underlined, as JSON and as SARIF 2.1.0."""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from urllib.parse import quote

from .finding import Finding
from .grammar import PLACES

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_SAYS = {
    "variable-misuse": "another variable seems to be meant",
    "argument-swap": "two arguments seem to be exchanged",
    "wrong-operator": "another operator seems to be meant",
    "wrong-literal": "another value seems to be meant",
    "wrong-attribute": "another attribute seems to be meant",
}


def ranked(findings: Iterable[Finding], top: int | None) -> list[Finding]:
    """By probability, the most probable first; ties in the order of the text. With `top`, only so many are kept at a
    time, however many there are.
    """

    def place(finding: Finding) -> tuple[float, str, int, int]:
        return -finding.probability, finding.path, finding.line, finding.column

    return sorted(findings, key=place) if top is None else heapq.nsmallest(top, findings, key=place)


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1) + "\n"


@lru_cache(maxsize=32)
def _lines(path: str) -> list[str]:
    text = Path(path).read_bytes().decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def as_text(finding: Finding) -> str:
    """`path:line:column: probability kind: saying`, the line, the place underlined with its repair, the evidence."""
    head = (
        f"{finding.path}:{finding.line}:{finding.column}: {finding.probability:.2f} {finding.kind}: "
        f"{_SAYS[finding.kind]}"
    )
    lines = _lines(finding.path)
    if finding.line > len(lines):
        return head
    line = lines[finding.line - 1]
    stop = finding.end_column - 1 if finding.end_line == finding.line else len(line)
    # A tab stays a tab, so that the marks stand below the text whatever its width.
    lead = "".join("\t" if c == "\t" else " " for c in line[: finding.column - 1])
    marks = "^" * max(stop - finding.column + 1, 1)
    repair = " ".join(finding.repair.split())
    reason = f"\n    {finding.evidence}" if finding.evidence else ""
    return f"{head}\n    {line}\n    {lead}{marks} → {repair}{reason}"


def as_sarif(findings: Sequence[Finding], version: str) -> str:
    """One run of SARIF 2.1.0; paths are relative URIs where they can be."""
    driver = {"name": "outsize-trees", "version": version, "rules": [_rule(kind) for kind in PLACES]}
    results = [_result(finding) for finding in findings]
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver},
           "columnKind": "unicodeCodePoints", "results": results}]}  # fmt: skip
    return json.dumps(log, indent=1) + "\n"


def _rule(kind: str) -> dict[str, object]:
    name = "".join(word.capitalize() for word in kind.split("-"))
    about = (
        f"{_SAYS[kind].capitalize()}: judged by a network from the rest of the function, which may be wrong."
    )
    return {
        "id": kind, "name": name, "shortDescription": {"text": _SAYS[kind]}, "fullDescription": {"text": about},
        "help": {"text": f"{about} Put `# outsize: ignore[{kind}]` into the line to keep it away."},
        "defaultConfiguration": {"level": "warning"}, "properties": {"tags": ["correctness"]},
    }  # fmt: skip


def _result(finding: Finding) -> dict[str, object]:
    region = {
        "startLine": finding.line, "startColumn": finding.column,
        "endLine": finding.end_line, "endColumn": finding.end_column,
    }  # fmt: skip
    artifact = {"uri": quote(os.fsencode(PurePath(finding.path).as_posix()))}
    change = {"deletedRegion": region, "insertedContent": {"text": finding.repair}}
    reason = f"; {finding.evidence}" if finding.evidence else ""
    text = f"{_SAYS[finding.kind]}: {finding.repair} (probability {finding.probability:.2f}){reason}"
    fix = {
        "description": {"text": f"Put `{finding.repair}` there."},
        "artifactChanges": [{"artifactLocation": artifact, "replacements": [change]}],
    }
    return {
        "ruleId": finding.kind,
        "ruleIndex": PLACES.index(finding.kind),
        "level": "warning" if finding.probability >= 0.5 else "note",
        "rank": round(100 * finding.probability, 2),
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": region}}],
        "partialFingerprints": {"outsizeTrees/v1": finding.fingerprint},
        "fixes": [fix],
    }
