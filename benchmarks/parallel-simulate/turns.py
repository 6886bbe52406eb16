"""Do workers that take turns on a core lose time by waiting for each other? Event by event, for README.md.

python benchmarks/parallel-simulate/turns.py

Each worker computes, stages and sums its chunks in the engine's order (a ring of four places, a step that ends together)
and sleeps where the engine would; a core runs one for at most a quantum, then the next that can run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

WORKERS, CORES, CHUNKS, DEPTH = 4, 2, 13, 4
Need = float | Callable[[], bool]  # seconds of a core, or what to sleep for


def worker(
    index: int, staged: list[int], summed: list[int], times: dict[str, float], lag: float
) -> Iterator[Need]:
    def add_up(until: int) -> Iterator[Need]:
        while summed[index] < until:
            chunk = summed[index]
            yield lambda chunk=chunk: min(staged) > chunk  # type: ignore[misc]
            yield times["sum"]
            summed[index] += 1

    slower = 1 + lag * (index == 0)
    yield times["forward"] * slower
    for chunk in range(CHUNKS):
        yield times["backward"] / CHUNKS * slower
        yield from add_up(chunk + 1 - DEPTH)
        yield lambda chunk=chunk: min(summed) > chunk - DEPTH  # type: ignore[misc]
        yield times["stage"]
        staged[index] += 1
        yield from add_up(min(staged))
    yield from add_up(CHUNKS)
    yield lambda: min(summed) == CHUNKS


def step(quantum: float, times: dict[str, float], lag: float) -> tuple[float, float]:
    """Seconds of a step, and the share of the cores that was in use; one worker computes slower by `lag`."""
    staged, summed = [0] * WORKERS, [0] * WORKERS
    programs = [worker(w, staged, summed, times, lag) for w in range(WORKERS)]
    needs: list[Need | None] = [next(program) for program in programs]
    now, busy = 0.0, 0.0
    queue, asleep = list(range(WORKERS)), list[int]()
    running: dict[int, float] = {}  # worker: what is left of its quantum

    def advance(w: int) -> None:
        """To the next piece of work, past everything that need not be waited for."""
        need = next(programs[w], None)
        while callable(need) and need():
            need = next(programs[w], None)
        needs[w] = need

    while any(need is not None for need in needs):
        for w in [w for w in asleep if needs[w]()]:  # type: ignore[misc,operator]
            asleep.remove(w)
            advance(w)
            (asleep if callable(needs[w]) else queue).append(w) if needs[w] is not None else None
        while queue and len(running) < CORES:
            running[queue.pop(0)] = quantum
        if not running:
            continue
        span = min(min(needs[w], left) for w, left in running.items())  # type: ignore[type-var]
        now, busy = now + span, busy + span * len(running)
        for w, left in list(running.items()):
            needs[w] -= span  # type: ignore[operator]
            running[w] = left - span
            if needs[w] <= 1e-12:  # type: ignore[operator]
                advance(w)
            if needs[w] is None or callable(needs[w]):
                del running[w]
                if needs[w] is not None:
                    asleep.append(w)
            elif running[w] <= 1e-12:
                del running[w]
                queue.append(w)
    return now, busy / now / CORES


def main() -> None:
    rates = json.loads((Path(__file__).parent / "result.json").read_text())["rates"]
    crowded, chunk = 1 + rates["crowding"], 4 * 12.6e6 / CHUNKS
    speed = rates["memory"] / CORES
    times = {
        "forward": rates["forward"] * crowded, "backward": 2 * rates["forward"] * crowded,
        "stage": 2 * chunk * (WORKERS - 1) / WORKERS / speed, "sum": (1 + 6 / WORKERS) * chunk / speed,
    }  # fmt: skip
    for lag in (0.0, 0.05, 0.2):
        for quantum in (0.5e-3, 3e-3, 10e-3, 30e-3):
            seconds, used = step(quantum, times, lag)
            print(
                f"one worker slower by {lag:.0%}, quantum {quantum * 1e3:4.1f} ms: {seconds * 1e3:.1f} ms a step, "
                f"cores in use {used:.1%}"
            )


if __name__ == "__main__":
    main()
