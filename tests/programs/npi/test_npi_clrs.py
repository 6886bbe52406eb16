"""The 27 programs of the CLRS benchmark: as plain Python they answer what the benchmark's own code does, and they end."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from outsize.programs import npi
from outsize.programs.npi.certify import ends_of

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "npi-clrs"))
import algorithms as ALGORITHMS
import instances as INSTANCES

FOLDER = Path(ALGORITHMS.__file__).parent
TASKS = {task.name: task for task in ALGORITHMS.TASKS}
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


def test_all_thirty_are_attempted():
    assert len(INSTANCES.INSTANCES) == 30
    assert TASKS.keys() | ALGORITHMS.UNSAID.keys() == INSTANCES.INSTANCES.keys()
    assert not TASKS.keys() & ALGORITHMS.UNSAID.keys()


@pytest.mark.parametrize("name", TASKS)
def test_a_program_answers_as_the_benchmarks_own_code(name):
    task = TASKS[name]
    for seed in range(3):
        heads = task.heads(**INSTANCES.instance(name, 16, seed))
        task.program(*heads)
        text = json.dumps(task.output(heads), sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == EXPECTED[f"{name} 16 {seed}"]


@pytest.mark.parametrize("name", ["dfs", "strongly_connected_components", "kmp_matcher", "quickselect"])
def test_a_program_is_proved_to_end(name):
    """Without training. A helper that writes elsewhere leaves what is known of a vertex's mark."""
    task = TASKS[name]
    template = npi.parameterize(
        npi.trace(task.program, [lambda: task.heads(**INSTANCES.instance(name, 16, 1_000))])
    )
    data = {slot: site.pairs(1 << 22) for slot, site in template.sites.items()}
    found, _ = ends_of(template, data)
    assert found.proved, found.open
