"""One suspicious place, as a scan reports it."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from ...values.ranges import Range

Line = Annotated[int, Range(1, 2**31)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Lines and columns count from 1; columns count characters; the end is exclusive.

    Attributes:
        kind: one of `grammar.PLACES`.
        repair: the text to put in place of the span.
        probability: calibrated, that this very place is wrong.
        function: the outermost function or class that holds it, empty at the top level.
        evidence: what in the text speaks for it (`evidence`), may be empty.
        fingerprint: see `known`.
    """

    path: str
    line: Line
    column: Line
    end_line: Line
    end_column: Line
    kind: str
    repair: str
    probability: Annotated[float, Range(0.0, 1.0)]
    function: str = ""
    evidence: str = ""
    fingerprint: str = ""
