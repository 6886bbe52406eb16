"""Numbers with the range that makes sense for them, written as type hints: `from_json` holds values against them.

Code that makes the values never pays for that; it is text from a file that is not believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Least and largest value, both allowed. `odd` allows NaN and the infinities as well."""

    low: float
    high: float
    odd: bool = False

    def holds(self, value: float) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return self.odd
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


#: What fits the 64-bit integers that sizes end up in.
_LARGEST = 2**63 - 1
#: A number of bytes, of floating-point operations, of steps.
Count = Annotated[int, Range(0, _LARGEST)]
#: A position or the number of a storage.
Index = Annotated[int, Range(0, 2**31 - 1)]
#: The same, or -1 for none.
MaybeIndex = Annotated[int, Range(-1, 2**31 - 1)]
#: A duration; a million years is more than any step takes, and its sums stay finite.
Seconds = Annotated[float, Range(0.0, 3e13)]
#: A moment, counted from one that may lie behind it.
Moment = Annotated[float, Range(-3e13, 3e13)]
#: Anything per second. Divisors: the least one moves a byte in a year.
Rate = Annotated[float, Range(3e-8, 1e30)]
#: What a loss function gave, which may be no number at all.
Loss = Annotated[float, Range(-math.inf, math.inf, odd=True)]
