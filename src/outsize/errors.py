"""One exception tree: everything that `outsize` raises on purpose is an `OutsizeError`.

A message says what was asked, the numbers against it, and the nearest thing that works.
"""

from __future__ import annotations

from collections.abc import Sequence


class OutsizeError(Exception):
    """Base of every error that this package raises on purpose."""


class UnitError(OutsizeError, ValueError):
    """A quantity (bytes, bandwidth, seconds) could not be read."""


class VersionError(OutsizeError, ImportError):
    """The installed torch is outside the range that the private-API shim was tested with."""


class CaptureError(OutsizeError):
    """The step could not be captured as a graph (graph break, uncaptured module, unknown size)."""


class WorkloadError(OutsizeError):
    """A model, a data set or a `build()` file that was named for training cannot be used."""


class BudgetError(OutsizeError):
    """No plan keeps the step under the budget.

    Attributes:
        smallest_feasible_bytes: the smallest budget, in bytes, for which a plan exists.
        dominating: `(name, bytes)` of the storages alive at the position that cannot shrink.
    """

    def __init__(
        self, message: str, *, smallest_feasible_bytes: int, dominating: Sequence[tuple[str, int]] = ()
    ) -> None:
        super().__init__(message)
        self.smallest_feasible_bytes = smallest_feasible_bytes
        self.dominating = tuple(dominating)


class BudgetWarning(RuntimeWarning):
    """A step went over its budget.

    Attributes:
        peak_bytes: what it reached.
        budget_bytes: what it had.
    """

    def __init__(self, message: str, *, peak_bytes: int, budget_bytes: int) -> None:
        super().__init__(message)
        self.peak_bytes = peak_bytes
        self.budget_bytes = budget_bytes


class HostBudgetError(BudgetError):
    """The bytes held in the host tier exceed `host_budget`."""


class DiskBudgetError(BudgetError):
    """The bytes held in the disk tier exceed `disk_budget`."""


class PlanError(OutsizeError):
    """A plan failed its independent check: a planner's defect, never the user's."""


class RewriteError(OutsizeError):
    """A rewritten graph failed verification: a rewriter's defect, never the user's."""


class TierError(OutsizeError, OSError):
    """A tier cannot hold or return a block (missing or read-only directory, full disk, I/O error)."""


class TierFullError(TierError):
    """A tier has no room: the disk is full, or the host refuses to pin more."""


class ChecksumError(TierError):
    """A block came back from a tier with other bytes than went in."""


class MutationError(OutsizeError, RuntimeError):
    """A tensor that the backward reads was changed in place since the forward: a `RuntimeError`, as autograd raises."""


class CodecError(OutsizeError):
    """A compressed buffer is damaged, mismatched or unsupported."""


class ParallelError(OutsizeError):
    """A model, optimizer or machine cannot be trained data-parallel as asked."""


class RankFailure(OutsizeError):
    """A worker of a distributed step died, stopped, raised or left early.

    Attributes:
        rank: the worker's rank.
        pid: its process id, or -1 when it never came up.
        phase: where the others were when it was noticed.
    """

    def __init__(self, message: str, *, rank: int, pid: int, phase: str) -> None:
        super().__init__(message)
        self.rank = rank
        self.pid = pid
        self.phase = phase


class TreesError(OutsizeError):
    """A syntax tree, forest, corpus or trained tree model cannot be used."""


class NpiError(OutsizeError):
    """A template, trace, primitive, execution or certificate of the programmer-interpreter is not usable."""


class NpiWarning(UserWarning):
    """A trained program may answer wrongly, or was shown too little to be learned whole."""
