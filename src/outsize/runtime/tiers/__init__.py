"""Tiers: the memory behind the device. `DiskTier` and `HostTier` keep the contract of `Tier`."""

from .base import Arrival, Block, Data, Tier, TierCounters
from .disk import DiskSettings, DiskTier

__all__ = ["Arrival", "Block", "Data", "DiskSettings", "DiskTier", "Tier", "TierCounters"]
