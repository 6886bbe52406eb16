"""Networks over syntax trees: find the suspicious place in a program (method 6).

from outsize.programs.trees import LocalizedTreeConv, parse

forest = parse(open("module.py").read())
layer = LocalizedTreeConv(width=64, layers=3)
vectors = layer(features, forest, pivots)        # every pivot in one pass
"""

from .forest import Forest
from .localized import LocalizedTreeConv, TreeConv
from .parsing import parse
from .topology import Topology

__all__ = ["Forest", "LocalizedTreeConv", "Topology", "TreeConv", "parse"]
