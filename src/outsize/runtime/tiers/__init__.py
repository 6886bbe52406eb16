"""Tiers: the memory behind the device. `DiskTier` and `HostTier` keep the contract of `Tier`."""

from .base import Arrival, Block, Data, Moved, Tally, Tier, TierCounters
from .disk import DiskSettings, DiskTier
from .file import RawFile
from .host import HostSettings, HostTier

__all__ = [
    "Arrival",
    "Block",
    "Data",
    "DiskSettings",
    "DiskTier",
    "HostSettings",
    "HostTier",
    "Moved",
    "RawFile",
    "Tally",
    "Tier",
    "TierCounters",
]
