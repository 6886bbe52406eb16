from __future__ import annotations

from ..contract import Backend


class Triton(Backend):
    name = "triton"

    def available(self):
        return False

    def supports(self, device):
        return device.type == "cuda"

    def encode(self, *a, **k): ...
    def encode_exact(self, *a, **k): ...
    def decode(self, *a, **k): ...
    def mark(self, *a, **k): ...
    def select(self, *a, **k): ...
