"""A step that swaps to the host tier, on an emulated accelerator where no copy runs before something waits for it."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

import outsize
from outsize import api, decide, zoo
from outsize.device.lanes import DeferredLanes
from outsize.device.place import check_device, device_of
from outsize.runtime.tiers import HostTier
from outsize.values import LinkRate

from .training import rebudget, smallest_budget, train

LINK = LinkRate(out_bytes_per_second=5e9, in_bytes_per_second=5e9, latency_seconds=1e-5, shared=False)


@pytest.mark.parametrize("name", ["gpt", "resnet50", "unet2d"])
def test_a_missing_wait_would_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "_links", lambda device, disk, most: {"host": LINK})
    monkeypatch.setattr(
        api,
        "_tiers",
        lambda device, options: {"host": HostTier(lanes=DeferredLanes(lambda waiting: waiting // 2))},
    )
    work = zoo.load(name, seed=0, tiny=True)
    state = copy.deepcopy(work.module.state_dict())
    expected = train(work, outsize.meter(copy.deepcopy(work.module)))
    module = outsize.compile(work.module, 2**40, actions=("swap",))
    train(work, module)
    chosen = {"planner": "search", "actions": ("swap",)}
    module.load_state_dict(state)
    smallest = smallest_budget(module, work.example().args, **chosen)
    module.load_state_dict(state)
    rebudget(module, smallest, **chosen)
    assert expected.differing(train(work, module)) == []
    report = outsize.report(module)
    assert {d.tier for d in report.decisions} == {"host"}
    assert report.swapped_out_bytes > 0
    assert report.measured_peak_bytes <= smallest


def test_which_device_a_step_is_on() -> None:
    fake = functools.partial(torch.empty, 2)
    with torch._subclasses.FakeTensorMode():
        cpu, first, second, other = (fake(device=d) for d in ("cpu", "cuda:0", "cuda:1", "xpu:0"))
    assert device_of([]) == device_of([cpu]) == torch.device("cpu")
    assert device_of([cpu, first, first]) == torch.device("cuda:0")
    with pytest.raises(outsize.OutsizeError, match=r"several devices \(cuda:0, cuda:1\)"):
        device_of([first, second])
    with pytest.raises(outsize.OutsizeError, match="no memory meter for a 'xpu'"):
        device_of([other])


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(outsize.OutsizeError, match=f"no device '{name}' here.*: give 'cpu'"):
        check_device(name)
    check_device("cpu")


def test_disk_is_for_modules_on_the_processor() -> None:
    module = nn.Module()
    with torch._subclasses.FakeTensorMode():
        module.register_buffer("weight", torch.empty(4, device="cuda:0"))
    with pytest.raises(outsize.OutsizeError, match="swaps to page-locked host memory"):
        outsize.compile(module, 2**30, disk=".")
    with pytest.raises(outsize.OutsizeError, match="takes modules on the processor"):
        outsize.compile(module, 2**30, inner="inductor")
