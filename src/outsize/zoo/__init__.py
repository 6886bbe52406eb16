"""Real networks on real data, for the CLI, the tests and the benchmarks: `outsize.zoo.load("gpt", seed=0)`."""

from .custom import load_build
from .recipes import Wanted, load, names
from .workload import Batch, Workload, mean_loss

__all__ = ["Batch", "Wanted", "Workload", "load", "load_build", "mean_loss", "names"]
