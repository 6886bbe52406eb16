"""What is measured here is counted as in the product: at every change of torch's blocks, not by samples."""

import pytest

from outsize.device import allocator


@pytest.fixture(scope="package", autouse=True)
def exact_count() -> None:
    allocator.install()
