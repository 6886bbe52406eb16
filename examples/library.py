"""The library in an ordinary training loop: one line more, the loop unchanged.

python examples/library.py
"""

import torch
from torch import nn
from torch.nn import functional as F

import outsize


def main() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(256, 256), nn.GELU(), nn.Dropout(0.1))]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    outsize.compile(model, budget="40 MiB", optimizer=optimizer)

    x, y = torch.randn(2048, 256), torch.randint(10, (2048,))
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    record = outsize.report(model)
    mib = 2**20
    print(f"loss {loss.item():.3f}")
    print(f"plain step {record.plain_peak_bytes / mib:.1f} MiB, budget {record.budget_bytes / mib:.1f} MiB")
    print(f"measured   {record.measured_peak_bytes / mib:.1f} MiB")
    assert record.measured_peak_bytes <= record.budget_bytes


if __name__ == "__main__":
    main()
