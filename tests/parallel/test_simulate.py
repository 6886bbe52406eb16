"""The simulator against arithmetic done by hand, limits, and monotony."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outsize.parallel.simulate import Rates, baseline, fit, simulate

PLAIN = Rates(forward=1.0, memory=200.0, core=100.0, wake=0.0, cores=64)


def test_one_worker_by_hand() -> None:
    """Nothing to stage; each chunk's update moves 7 times its bytes: 7 × 100 / 100 = 7 s."""
    step = simulate([1.0, 2.0], [100, 100], PLAIN, workers=1, helper=True)
    assert step.finished == (1 + 8.0, 1 + 15.0)
    assert step.seconds == 16.0
    assert step.exposed == 13.0


def test_two_workers_by_hand() -> None:
    """Each stages half a chunk (2 × 50 / 100 = 1 s), then sums 2 and updates 6 times 50 bytes: 4 s."""
    step = simulate([1.0], [100], PLAIN, workers=2, helper=True)
    assert step.seconds == pytest.approx(1 + 1 + 1 + 4)


def test_delivery_overlaps_the_backward_pass() -> None:
    """C5.4: with a helper all but the last chunk hides behind later layers."""
    ready, sizes = [10.0, 20.0, 30.0], [100, 100, 100]
    assert simulate(ready, sizes, PLAIN, workers=2, helper=True).exposed == pytest.approx(5.0)
    whole = simulate([30.0], [300], PLAIN, workers=2, helper=True)
    assert whole.exposed == pytest.approx(15.0)


def test_ten_thousand_workers_take_milliseconds() -> None:
    rates = Rates(
        forward=0.1, memory=2e11, core=2e10, wake=5e-6, link=2.5e10, latency=5e-6, straggle=0.02, cores=64
    )
    ready = [0.01 * i for i in range(1, 21)]
    sizes = [16 << 20] * 20
    by_nodes = [simulate(ready, sizes, rates, workers=8 * n, nodes=n).seconds for n in (1, 2, 10, 100, 1250)]
    assert by_nodes == sorted(by_nodes)
    assert by_nodes[-1] < 10 * by_nodes[0]


@given(st.integers(1, 200), st.floats(1.1, 4))
def test_faster_links_never_slow_a_step(nodes: int, factor: float) -> None:
    rates = Rates(forward=1.0, memory=1e3, core=1e2, wake=0.0, link=10.0, latency=1e-3, cores=8)
    faster = Rates(forward=1.0, memory=1e3, core=1e2, wake=0.0, link=10.0 * factor, latency=1e-3, cores=8)
    slow = simulate([1, 2, 3], [10, 10, 10], rates, workers=4 * nodes, nodes=nodes)
    assert simulate([1, 2, 3], [10, 10, 10], faster, workers=4 * nodes, nodes=nodes).seconds <= slow.seconds
    assert list(slow.finished) == sorted(slow.finished)


def test_fit_meets_the_measurement() -> None:
    ready, sizes = [1.0, 2.0], [100, 100]
    measured = simulate(ready, sizes, PLAIN, workers=4).seconds
    start = Rates(forward=1.0, memory=900.0, core=100.0, wake=0.0, cores=64)
    fitted = fit(start, ready, sizes, workers=4, measured=measured)
    assert simulate(ready, sizes, fitted, workers=4).seconds == pytest.approx(measured, rel=1e-6)
    assert fitted.memory == pytest.approx(200.0, rel=1e-3)


def test_baseline_by_hand() -> None:
    rates = Rates(forward=1.0, memory=200.0, core=100.0, wake=0.0, link=50.0, cores=2)
    assert baseline(2.0, 100, rates, workers=2) == pytest.approx(3.0 + 2.0 + 7.0)
    assert baseline(2.0, 100, rates, workers=20, nodes=10) == pytest.approx(3.0 + 2 * 0.95 * 2.0 + 7.0)


def test_workers_share_cores_and_memory_by_hand() -> None:
    """Four workers on two cores take turns; the two that run share the memory, and slow each other by a tenth."""
    rates = Rates(forward=1.0, memory=100.0, core=100.0, wake=0.0, cores=2, crowding=0.1)
    step = simulate([1.0], [100], rates, workers=4, helper=True)
    stage, total = 2 * 75 / 50 * 2, (4 * 25 + 6 * 25) / 50 * 2
    assert step.seconds == pytest.approx(2 * 1.1 + 2 * 1.1 + stage + total)


def test_taking_turns_and_chunks_cost_by_hand() -> None:
    """Caches refilled at each turn make all work a quarter longer; each of two chunks costs a worker 3 s of its core."""
    rates = Rates(forward=1.0, memory=100.0, core=100.0, wake=0.0, cores=2, switching=0.25, overhead=3.0)
    alone = simulate([0.5, 1.0], [50, 50], rates, workers=1, helper=True)
    assert alone.seconds == pytest.approx(1 + 0.5 + 2 * (7 * 50 / 100 + 3))
    step = simulate([1.0], [100], rates, workers=4, helper=True)
    stage, total = 2 * 75 / 50, (4 * 25 + 6 * 25) / 50 + 3
    assert step.seconds == pytest.approx(2 * 1.25 * (1 + 1 + stage + total))


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="3 workers on 2 nodes"):
        simulate([1.0], [1], PLAIN, workers=3, nodes=2)
