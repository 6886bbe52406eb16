"""Every back end that runs here, each with every instruction set it has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from outsize.codecs.contract import Backend
from outsize.codecs.kernels import Triton
from outsize.codecs.native import Native
from outsize.codecs.reference import Reference

#: Under TRITON_INTERPRET=1 (tests/codecs/test_kernels.py starts such a run) the Triton programs alone are
#: tested: the others are in the run that started it.
BACKENDS: dict[str, Backend] = (
    {"triton": Triton()}
    if Triton().available() and not torch.cuda.is_available()
    else {"reference": Reference()}
    | {f"native-{name}": Native(i) for i, name in enumerate(Native.levels())}
    | ({"triton": Triton()} if torch.cuda.is_available() else {})
)


def place(name: str) -> str:
    """The device of the tensors that a back end is tested with."""
    return "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with torch.device(place(request.param)):  # of every tensor that the test makes
        yield BACKENDS[request.param]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
