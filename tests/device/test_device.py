"""Facts, clock and the measured link."""

import json
from collections.abc import Iterator

import pytest
import torch

from outsize.device import clock
from outsize.device.facts import facts
from outsize.device.lanes import _locked
from outsize.device.link import EmulatedLink, Pace
from outsize.device.measure import measure_link
from outsize.runtime.tiers import DiskSettings, DiskTier, HostSettings, HostTier, Tier


def test_facts_are_json() -> None:
    found = facts()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert int(str(found["cores"])) >= 1


def test_the_clock_does_not_run_back() -> None:
    assert clock.now() <= clock.now("cpu")


@pytest.fixture(params=["disk", "host"])
def tier(request: pytest.FixtureRequest) -> Iterator[Tier]:
    link = EmulatedLink(bytes_per_second=2e7, latency_seconds=0.001)
    made: Tier = (
        DiskTier(settings=DiskSettings(link=link))
        if request.param == "disk"
        else HostTier(settings=HostSettings(link=link))
    )
    with made:
        yield made


def test_an_emulated_link_is_measured_as_what_it_says(tier: Tier) -> None:
    rate = measure_link(tier, nbytes=2**20, block_bytes=2**18, repeats=1)
    # A busy machine may be slower than the link, never faster.
    assert 0 < rate.out_bytes_per_second <= 2e7
    assert 0 < rate.in_bytes_per_second <= 2e7
    assert rate.latency_seconds >= 0.001
    assert rate.drag_seconds_per_byte >= 0
    assert measure_link(tier, nbytes=2**19, beside_compute=False).drag_seconds_per_byte == 0


def test_transfers_of_one_direction_queue() -> None:
    pace = Pace(EmulatedLink(bytes_per_second=1000.0, latency_seconds=0.5))
    ends = [pace.begin(100) for _ in range(4)]
    assert torch.tensor(ends).diff().ge(0.0999).all() or ends[-1] - ends[0] >= 0.2999
    assert Pace(None).begin(10**12) == 0.0


class _Runtime:
    """CUDA's, as far as locking pages goes."""

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        self.locked[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


def test_pages_are_locked_while_a_tensor_lies_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = _Runtime()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "check_error", lambda status: None)
    whole = _locked(33 * 2**20)
    assert runtime.locked == {whole.data_ptr(): 33 * 2**20}
    part = whole[10:]
    del whole
    assert len(runtime.locked) == 1
    del part
    assert runtime.locked == {}
