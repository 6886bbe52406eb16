"""What costs least where an op does not fit: the prices of an eviction pass, and what goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

from ...values import Decision
from ..chains import Chains, chain_seconds
from .lanes import Lanes
from .options import Option
from .policy import Policy


@dataclass
class Gone:
    """A storage that is away: since which touch, and how."""

    after: int
    option: Option | None
    restored: int = -1
    region: tuple[int, ...] = ()


@dataclass
class Room(ABC):
    """The state of one eviction pass, and what goes where bytes are missing.

    Attributes:
        resident, touched: on the device now; last position that touched it.
        returns: seconds that bring back what left by other means than its producer.
        gone: what is away, and how. soft: what came back before anybody asked, and may go again without a trace.
        until: last position at which it is wanted: `reach` of what is retained, the last use of the rest.
        expiring: what is retained, by that position.
        unit, due: lower bound of the price of a byte, infinite where it may not go; start of the next use, seconds.
        exact: price and way as of so many moves.
        room_after: bytes that are free right after each position.
    """

    chains: Chains
    budget: int
    options: Callable[[int, bool], list[Option]]
    policy: Policy
    tier: str
    min_bytes: int

    def __post_init__(self) -> None:
        count = len(self.chains.size)
        self.resident, self.touched = [False] * count, [-1] * count
        self.returns: list[float | None] = [None] * count
        self.gone: dict[int, Gone] = {}
        self.soft: set[int] = set()
        self.alive = self.moves = 0
        self.room_after: list[int] = []
        self.written: set[int] = set()
        self.lanes = Lanes(self.chains)
        self.unit = np.full(count, np.inf)
        self.exact: dict[int, tuple[int, float, Option | None]] = {}
        self.due = np.zeros(count)
        self.size = np.array(self.chains.size, dtype=np.float64)
        self.until = list(self.chains.last)
        self.expiring: dict[int, list[int]] = {}
        for s in sorted(self.policy.retain):
            if self.chains.reach[s] > self.until[s]:
                self.until[s] = self.chains.reach[s]
                self.expiring.setdefault(self.until[s], []).append(s)

    @abstractmethod
    def run(self) -> list[Decision] | None:
        """Decisions that keep every position of the step under the budget; None where there is no way through."""

    def _vanish(self, s: int) -> None:
        """Bytes go and nobody will ask for them again at this place."""
        if self.resident[s]:
            self.resident[s] = False
            self.alive -= self.chains.size[s]
        self.unit[s] = np.inf
        self.soft.discard(s)

    def _offer(self, s: int, p: int) -> None:
        """The storage may be taken away from now on; its price so far is a lower bound."""
        chains = self.chains
        following = self._next_use(s, p)
        if following < 0 or chains.acted_from[s] > p:
            return
        cost = chains.seconds[chains.producer[s]] if self._may_remake(s, p) else inf
        for option in self._ways(s, p):
            cost = min(cost, option.compute_seconds + option.lane_cost(self.policy.lane_price))
        small = 1e6 if chains.size[s] < self.min_bytes else 1.0
        self.unit[s] = small * self.policy.weight[s] * (cost + 1e-9) / self.size[s]
        self.due[s] = chains.starts[following]
        self.exact.pop(s, None)

    def _next_use(self, s: int, p: int) -> int:
        """First position after p at which it is wanted: a use, or the last one of what a retained storage is for."""
        use = self.chains.next_use(s, p)
        return self.until[s] if use < 0 and self.until[s] > p else use

    def _chain_seconds(self, s: int, use: int, share: float) -> float:
        return chain_seconds(
            self.chains, s, use, until=self.until, resident=self.resident, returns=self.returns, share=share
        )

    def _may_remake(self, s: int, touched: int) -> bool:
        policy = self.policy
        if s in self.soft:
            return policy.recompute
        if not policy.recompute or s in policy.banned or (s, touched, "recompute") in policy.barred:
            return False
        return policy.remake is None or s in policy.remake

    def _ways(self, s: int, touched: int) -> list[Option]:
        if self.policy.remake is not None and s in self.policy.remake:
            return []
        ways = self.options(s, s in self.written)
        barred = self.policy.barred
        return [w for w in ways if (s, touched, w.action) not in barred] if barred else ways

    def _make_room(self, p: int, need: int) -> bool:
        while self.alive + need > self.budget:
            s = self._cheapest(p, self.alive + need - self.budget)
            if s < 0:
                return False
            self._evict(s)
        return True

    def _cheapest(self, p: int, missing: int) -> int:
        now = self.chains.starts[p]
        root = np.sqrt(np.sqrt(np.maximum(self.due - now, 1e-9)))
        wait = np.ones(len(root))
        for _ in range(
            round(4 * self.policy.patience)
        ):  # as native/evict_prices.c does, so that ties break alike
            wait *= root
        if self.policy.fit:
            wait /= np.maximum(self.size / missing, 1.0)
        while True:
            s = int(np.argmin(self.unit / wait))
            if not np.isfinite(self.unit[s]):
                return -1
            if self.exact.get(s, (-1,))[0] == self.moves:
                return s
            price, option = self._price(s, p)
            small = 1e6 if self.chains.size[s] < self.min_bytes else 1.0
            raised = small * self.policy.weight[s] * (price + 1e-9)
            worse = raised > self.unit[s] * 1.0000001
            self.exact[s] = (self.moves, price, option)
            if worse or not np.isfinite(raised):
                self.unit[s] = raised
                continue
            return s

    def _price(self, s: int, p: int) -> tuple[float, Option | None]:
        """Seconds per byte freed of the best way to take the storage away now."""
        chains, policy = self.chains, self.policy
        touched = self.touched[s]
        use = self._next_use(s, touched)
        best, chosen = inf, None
        if self._may_remake(s, touched):
            best = self._chain_seconds(s, use, policy.share) / chains.size[s]
        if s in self.soft:
            return best, None
        release = chains.starts[touched] + chains.seconds[touched]
        for option in self._ways(s, touched) if touched < p else ():
            if option.staged + option.kept > self.room_after[touched]:
                continue
            lane = 0.0
            if option.in_seconds:
                if policy.crowded:
                    exposed = self.lanes.exposed(option, release, chains.starts[p], use)
                else:
                    exposed = max(0.0, option.lane_seconds - (chains.starts[use] - release))
                lane = option.lane_cost(policy.lane_price) + exposed
            price = (option.compute_seconds + lane) / (chains.size[s] - option.kept)
            if price < best:
                best, chosen = price, option
        return best, chosen

    def _evict(self, s: int) -> None:
        _, _, option = self.exact.pop(s)
        self.resident[s] = False
        self.unit[s] = np.inf
        self.alive -= self.chains.size[s]
        self.moves += 1
        again = self.gone.get(s)
        if s in self.soft and again is not None:
            self.soft.discard(s)
            again.restored, again.region = -1, ()
            return
        self.gone[s] = Gone(after=self.touched[s], option=option)
        if option is not None:
            self.alive += option.kept
            if option.staged + option.kept:
                touched = self.touched[s]
                self.room_after[touched] -= option.staged + option.kept
            share = option.compute_seconds + option.lane_cost(self.policy.lane_price)
            self.returns[s] = share / 2
            if option.action == "swap":
                self.written.add(s)
            if option.in_seconds:
                touched = self.touched[s]
                release = self.chains.starts[touched] + self.chains.seconds[touched]
                self.lanes.promise(option, release, self._next_use(s, touched))
