"""Chunk-wise data parallelism with the CPU inside the backward pass (method 5).

    model, optimizer = outsize.parallel.distribute(model, torch.optim.AdamW, lr=1e-3)

under `torchrun`; the training loop stays as it is.
"""

from __future__ import annotations

from ..errors import ParallelError, RankFailure
from .checkpoint import load_state_dict, state_dict
from .chunks import Chunk, ChunkPlan, Piece, Slot
from .distribute import distribute, synchronize
from .hook import shared_memory_hook
from .launch import is_first, is_worker, launch
from .module import Distributed
from .optimizer import ChunkOptimizer
from .settings import Search, Settings

__all__ = [
    "Chunk",
    "ChunkOptimizer",
    "ChunkPlan",
    "Distributed",
    "ParallelError",
    "Piece",
    "RankFailure",
    "Search",
    "Settings",
    "Slot",
    "distribute",
    "is_first",
    "is_worker",
    "launch",
    "load_state_dict",
    "shared_memory_hook",
    "state_dict",
    "synchronize",
]
