"""Runs damaged files through the readers: `python -m tests.fuzz.campaign --cases 200 forest functions`.

A case fails where a reader or the use of what it read raises anything but the project's own error, where that error does
not name the file, where a damage under a checksum goes unnoticed, or where it takes more than `MOST_SECONDS` of processor
time. Each case is drawn from the subject's name, the seed and its number alone, so any of them can be run again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Of processor time; the slowest case of `benchmarks/fuzz` takes less than a tenth of it.
MOST_SECONDS = 10.0


@dataclass
class Report:
    """What became of the cases of one subject."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    refused_in_use: int = 0
    slowest_seconds: float = 0.0
    grown_bytes: int = 0
    failures: list[str] = field(default_factory=list)


class TooLong(BaseException):
    """The processor time of a case is used up; no `except Exception` stops it."""


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TooLong(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run(
    name: str,
    *,
    cases: int,
    seed: int,
    folder: Path,
    seconds: float = float("inf"),
    until: Callable[[Report], bool] = lambda report: False,
) -> Report:
    """Cases 0 to `cases` of one subject; it ends before where `seconds` of processor time are up or `until` holds."""
    from .subjects import SUBJECTS, mutant

    subject, report = SUBJECTS[name], Report()
    path = folder / subject.file
    subject.make(path)
    sound = path.read_bytes()
    value = subject.read(path)
    subject.use(value)
    high, end = _resident(), time.process_time() + seconds
    for number in range(cases):
        rng = random.Random(f"{name} {seed} {number}")
        data, told = mutant(sound, subject, rng)
        path.write_bytes(data)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem = _one(subject, path, report, value if told else None)
        report.cases += 1
        report.slowest_seconds = max(report.slowest_seconds, round(time.process_time() - began, 3))
        if problem:
            report.failures.append(f"{name}, seed {seed}, case {number}: {problem}")
        if time.process_time() > end or until(report):
            break
    report.grown_bytes = _resident() - high
    return report


def _one(subject: Any, path: Path, report: Report, untouched: Any) -> str:
    """What is wrong with how one damaged file was taken; empty where nothing is.

    `untouched` is what the sound file holds, where a checksum has to notice that this one holds something else.
    """
    from outsize.errors import OutsizeError

    found = None
    try:
        with processor_time(MOST_SECONDS):
            try:
                found = subject.read(path)
            except subject.errors as error:
                report.refused += 1
                return (
                    ""
                    if _says_enough(str(error), path, subject)
                    else f"an error without the file, or too long: {error}"
                )
            if untouched is not None and (path.suffix != ".json" or found != untouched):
                return "the damage went unnoticed under a checksum"
            subject.use(found)
    except OutsizeError:
        report.refused_in_use += 1
    except (Exception, TooLong) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:500]
    else:
        report.accepted += 1
    return ""


def _says_enough(message: str, path: Path, subject: Any) -> bool:
    return (str(path) in message or path.suffix == ".py") and len(message) < subject.longest_error


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def use_native(path: str) -> None:
    """Another build of the native module instead of the installed one."""
    spec = importlib.util.spec_from_file_location("outsize.native._native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["outsize.native._native"] = module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="subjects; all of them if none is given")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="processor time for each subject")
    parser.add_argument("--native", help="a build of the native module to use")
    given = parser.parse_args()
    if given.native:
        use_native(given.native)
    import torch

    torch.set_num_threads(1)
    from .subjects import chosen

    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen(given.names):
            report = run(name, cases=given.cases, seed=given.seed, folder=Path(folder), seconds=given.seconds)
            print(json.dumps({"subject": name, **asdict(report)}), flush=True)
            failed += len(report.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
