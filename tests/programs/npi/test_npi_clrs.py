"""The 27 programs of the CLRS benchmark: as plain Python they answer what the benchmark's own code does, and they end."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from outsize.errors import NpiError
from outsize.programs import npi
from outsize.programs.npi.certify import ends_of

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "npi-clrs"))
import algorithms as ALGORITHMS
import instances as INSTANCES

FOLDER = Path(ALGORITHMS.__file__).parent
_SPEC = importlib.util.spec_from_file_location("npi_clrs_run", FOLDER / "run.py")
RUN = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(RUN)
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


def test_a_stopped_run_goes_on_and_loses_nothing(tmp_path, monkeypatch):
    """Learned again, since no model was kept: sizes that were known are of the model before, and are run anew."""
    path, done = tmp_path / "rows.json", {"right": 1, "instances": 1, "calls": 1, "seconds": 0.0}
    path.write_text(json.dumps({"minimum": {"algorithm": "minimum", "proved": True, "sizes": {"16": done}}}))
    sizes = []

    def compare(task, model, size, expected):
        sizes.append(size)
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(
        RUN, "attempt", lambda task: ({"algorithm": task.name, "proved": True, "why": ""}, object())
    )
    monkeypatch.setattr(RUN, "compare", compare)
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "minimum", "--json", str(path)])
    with pytest.raises(KeyboardInterrupt):
        RUN.main()
    assert json.loads(path.read_text())["minimum"]["sizes"].keys() == {"16", "64"}
    RUN.main()
    assert json.loads(path.read_text())["minimum"]["sizes"].keys() == {"16", "64", "1000"}


def test_an_instance_that_stops_the_model_is_counted_and_ends_no_run(monkeypatch):
    def run(model, executions, **how):
        raise NpiError("a sum is beyond what its tape holds")

    monkeypatch.setattr(RUN.npi, "run", run)
    row = RUN.compare(TASKS["minimum"], None, 16, EXPECTED)
    assert (row["instances"], row["right"]) == (20, 0)
    assert row["stopped"] == "a sum is beyond what its tape holds"
