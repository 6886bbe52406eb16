"""One worker of a data-parallel model, put together.

Reads from top to bottom as startup does: who is on this node → one arena for all → parameters become views
of it → chunks → engine. What a step does is in `engine`; what the user holds is in `module` and `optimizer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist
from torch import nn

from ..device import allocator
from ..device.lanes import lanes_for
from ..errors import ParallelError
from .arena import Arena, Layout
from .bridge import Bridge, pin
from .chunks import ChunkPlan, Slot, form
from .engine import Engine
from .faults import HEADER, Control, Field, ended, gone, lines_bytes, watch
from .generic import GenericRule, Schema
from .guards import Idle, Places
from .node import Groups, Node, discover, exchange, fetch, hand_out, listen
from .relay import Relay
from .ring import Ring
from .rules import Memory, NativeRule, Rule, check_options, hyperparameters, master_type, native_state
from .settings import MiB, Settings
from .sinks import TORCH_TYPES, ReturnSink, Sink, UpdateSink
from .startup import dense_strides, meeting, open_groups, slots_of


@final
class Worker:
    """This process's part of the node.

    Args:
        module: whose trainable parameters are synchronised.
        template: an optimizer over them whose updates the CPU makes; None hands gradients back.
        chunk_mb: fixed chunk size in MiB, or None to start from `settings.search.first_mb`.
        max_norm: clip the global gradient norm (deferred update).
        timeout: seconds until a worker that has not arrived counts as stopped.
        settings: the rest.
    """

    def __init__(
        self,
        module: nn.Module,
        template: torch.optim.Optimizer | None,
        *,
        chunk_mb: float | None,
        max_norm: float | None,
        timeout: float,
        settings: Settings,
    ) -> None:
        self.module, self.template, self.settings, self.timeout = module, template, settings, timeout
        self.names, self.params, self.slots = slots_of(module)
        self._frozen = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
        self.bridge = self._bridge()
        if settings.reuse_pages and self.bridge is None:
            allocator.install()
        with meeting(timeout):
            self.groups = open_groups(timeout)
            self.node = discover(self.groups.everyone, settings.nodes)
            self._agree_on_model()
            self._open_peers()
        self.deferred = settings.deferred or max_norm is not None
        self.schemas = self._schemas()
        self.arena = share(Layout(self._sections(chunk_mb)), self.node, timeout)
        if self.bridge is not None:
            pin(self.arena, self.params[0].device)
        self.control = Control(self.arena, self.node, timeout)
        self.steps = torch.zeros(len(self.slots), dtype=torch.float32)
        self.group_of = self._groups_of_slots()
        self.memories: dict[str, Memory] = {}
        self._same_start()
        if template is not None:
            self._move_in()
        self.places = Places(module, self.names, self.params, template is not None)
        self.sink = self._sink(max_norm)
        self.engine = Engine(
            control=self.control, slots=self.slots, params=self.params,
            presence=self.arena.tensor("presence", torch.uint8).view(2, self.node.local_world, -1),
            sink=self.sink, keep=template is None, helper=self._wants_helper(), bridge=self.bridge,
        )  # fmt: skip
        if template is not None:
            module.register_state_dict_pre_hook(Idle(self.wait_idle))
        self.adopt(self.form(chunk_mb or settings.search.first_mb, self.default_order()))
        self.control.barrier()

    # ---- startup ------------------------------------------------------------------------------------------

    def _agree_on_model(self) -> None:
        if self.groups.everyone is None:
            return
        mine = form(self.slots, range(len(self.slots)), MiB).digest
        for rank, card in enumerate(exchange({"model": mine}, self.groups.everyone)):
            if card["model"] != mine:
                raise ParallelError(
                    f"rank {rank} has other trainable parameters than rank {self.node.rank} ({len(self.slots)} "
                    "here): every worker must build the same model"
                )

    def _open_peers(self) -> None:
        """A group per place on a node; every worker opens every group, in the same order."""
        if self.node.count == 1 or self.groups.everyone is None:
            return
        cards = exchange({"ranks": self.node.ranks}, self.groups.everyone)
        nodes = list(dict.fromkeys(tuple(card["ranks"]) for card in cards))
        for place in range(self.node.local_world):
            ranks = [ranks[place] for ranks in nodes]
            group = dist.new_group(ranks, backend="gloo", timeout=timedelta(seconds=self.timeout))
            if self.node.rank in ranks:
                self.groups = Groups(everyone=self.groups.everyone, peers=group)

    def _bridge(self) -> Bridge | None:
        """To the module's device, unless that is the CPU."""
        devices = {p.device for p in self.params}
        if len(devices) != 1 or next(iter(devices)).type == "meta":
            raise ParallelError(f"a module must be on one real device, got {sorted(map(str, devices))}")
        device = devices.pop()
        if self.settings.lanes is None and device.type == "cpu":
            return None
        return Bridge(self.settings.lanes or lanes_for(device), self.slots, self.params)

    def _schemas(self) -> dict[str, Schema | None]:
        """Per space, how the optimizer's state looks; None where the C module makes the update."""
        found: dict[str, Schema | None] = {}
        if self.template is None:
            return found
        check_options(self.template.param_groups)
        kind = type(self.template)
        native_names = [native_state(kind, group) for group in self.template.param_groups]
        for space in sorted({slot.space for slot in self.slots}):
            fits = None not in native_names and space in ("float32", "bfloat16")
            found[space] = None if fits else Schema.probe(self.template)
        return found

    def _state_names(self, space: str) -> tuple[str, ...]:
        assert self.template is not None
        schema = self.schemas[space]
        if schema is not None:
            return schema.elementwise
        names = [native_state(type(self.template), group) or () for group in self.template.param_groups]
        return max(names, key=len)

    def _sections(self, chunk_mb: float | None) -> dict[str, int]:
        workers, slots = self.node.local_world, len(self.slots)
        largest = max(chunk_mb or 0, self.settings.staging_mb / self.settings.depth)
        sizes = {
            "header": HEADER,
            "lines": lines_bytes(workers),
            "orders": 8 * (slots + 1),
            "presence": 2 * workers * slots,
            "norms": 8 * workers,
            "scalars": 8 * slots * 8,
            "buffers": sum(b.numel() * b.element_size() for b in self.module.buffers()),
            "staging": workers * self._staging_bytes(largest),
        }
        if self.template is not None:
            for space, length in self._lengths().items():
                dtype = TORCH_TYPES[space]
                wide = master_type(dtype)
                sizes[f"{space} param"] = length * dtype.itemsize
                if wide != dtype:
                    sizes[f"{space} master"] = length * wide.itemsize
                for name in self._state_names(space):
                    sizes[f"{space} {name}"] = length * wide.itemsize
                if self.deferred:
                    sizes[f"{space} total"] = length * wide.itemsize
        return sizes

    def _staging_bytes(self, chunk_mb: float) -> int:
        """One worker's ring, no larger than a few copies of the whole model."""
        whole = sum(-(-slot.length // 64) * 64 * slot.itemsize for slot in self.slots)
        chunk = min(int(chunk_mb * MiB), whole) + 4096
        return self.settings.depth * -(-chunk // 4096) * 4096

    def _lengths(self) -> dict[str, int]:
        ends: dict[str, int] = {}
        for slot in self.slots:
            ends[slot.space] = slot.offset + -(-slot.length // 64) * 64
        return ends

    def _same_start(self) -> None:
        """Rank 0's frozen parameters and buffers everywhere, and its trainable ones where they are not shared."""
        if self.groups.everyone is None:
            return
        shared = {id(p) for p in self.params} if self.template is not None else set()
        with torch.no_grad():
            for tensor in [*self.module.parameters(), *self.module.buffers()]:
                if id(tensor) not in shared:
                    whole = tensor.detach().contiguous()
                    with self.control.collective():
                        dist.broadcast(whole, 0, group=self.groups.everyone)
                    tensor.detach().copy_(whole)

    def _move_in(self) -> None:
        """Parameters become views of the arena, with rank 0's values."""
        for space in self._lengths():
            dtype = TORCH_TYPES[space]
            wide = master_type(dtype)
            param = self.arena.tensor(f"{space} param", dtype)
            self.memories[space] = Memory(
                param=param,
                master=self.arena.tensor(f"{space} master", wide) if wide != dtype else param,
                state={n: self.arena.tensor(f"{space} {n}", wide) for n in self._state_names(space)},
                total=self.arena.tensor(f"{space} total", wide) if self.deferred else None,
            )
        with torch.no_grad():
            for slot, p in zip(self.slots, self.params):
                if self.node.leads:
                    if self.groups.peers is not None:
                        whole = p.detach().contiguous()
                        with self.control.collective():
                            dist.broadcast(whole, 0, group=self.groups.peers)
                        p.detach().copy_(whole)
                    self.view(slot, p, self.memories[slot.space].param).copy_(p)
                    self.view(slot, p, self.memories[slot.space].master).copy_(p)
            self.control.barrier()
            for slot, p in zip(self.slots, self.params):
                shared = self.view(slot, p, self.memories[slot.space].param)
                if self.bridge is None:
                    p.data = shared
                else:
                    p.detach().copy_(shared)
        if self.bridge is not None:
            self.bridge.guard(self.module)

    @staticmethod
    def view(slot: Slot, p: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """A slot's part of a flat tensor, in the parameter's shape and memory order."""
        return flat[slot.offset : slot.offset + slot.length].as_strided(
            p.shape, dense_strides(p), slot.offset
        )

    def _sink(self, max_norm: float | None) -> Sink:
        presence = self.arena.tensor("presence", torch.uint8).view(2, self.node.local_world, -1)
        relay = (
            Relay(self.groups.peers, self.control, self.timeout) if self.groups.peers is not None else None
        )
        if self.template is None:
            sink = ReturnSink(self.control, self.slots, presence, relay)
            sink.params, sink.bridge = self.params, self.bridge
            return sink
        rules: dict[str, Rule] = {}
        scalars = self.arena.tensor("scalars", torch.float64).view(len(self.slots), 8)
        for space, memory in self.memories.items():
            schema = self.schemas[space]
            if schema is None:
                rules[space] = NativeRule(type(self.template), memory, len(self.slots))
            else:
                rules[space] = GenericRule(self.template, memory, schema, scalars)
        norms = self.arena.tensor("norms", torch.float64)
        update = UpdateSink(
            self.control, self.slots, presence, relay,
            rules=rules, memories=self.memories, norms=norms, deferred=self.deferred, max_norm=max_norm,
        )  # fmt: skip
        update.prepare = self._prepare_rules
        return update

    def _wants_helper(self) -> bool:
        if self.bridge is not None:
            return True
        if self.settings.helper is not None:
            return self.settings.helper
        cores = len(os.sched_getaffinity(0)) / self.node.local_world
        return cores >= torch.get_num_threads() + 1

    def _groups_of_slots(self) -> list[int]:
        if self.template is None:
            return []
        owner = {id(p): i for i, group in enumerate(self.template.param_groups) for p in group["params"]}
        members = {id(p) for p in self.module.parameters()}
        for index, group in enumerate(self.template.param_groups):
            for p in group["params"]:
                if id(p) not in members:
                    raise ParallelError(
                        f"parameter group {index} holds a parameter of shape {tuple(p.shape)} that is not part of the "
                        "module, so nobody would synchronise it: register it on the module, or give it an "
                        "optimizer of its own"
                    )
        for name, p in zip(self.names, self.params):
            if id(p) not in owner:
                raise ParallelError(
                    f"{name} requires a gradient but is in no parameter group: add it, or freeze it with "
                    "requires_grad_(False)"
                )
        return [owner[id(p)] for p in self.params]

    # ---- plans --------------------------------------------------------------------------------------------

    def default_order(self) -> list[int]:
        """Slots are laid out last layer first, which is the usual order of gradients."""
        return list(range(len(self.slots)))

    def form(self, chunk_mb: float, order: Sequence[int]) -> ChunkPlan:
        """Chunks of at most `chunk_mb` MiB that fit the staging ring twice."""
        _, size = self.arena.layout.places["staging"]
        room = size // self.node.local_world // 2
        return form(self.slots, order, max(min(int(chunk_mb * MiB), room - 4096), 4096))

    def adopt(self, plan: ChunkPlan) -> None:
        self.plan = plan
        ring = Ring(self.arena, self.node.local_world, self.node.local_rank, plan, self.settings.depth)
        self.engine.adopt(plan, ring)

    # ---- a step -------------------------------------------------------------------------------------------

    #: Set by whoever wraps this worker: the live parameter groups; sending off gradients that have not
    #: travelled; what to do after a step made without inputs.
    groups_now: Sequence[Mapping[str, Any]] = ()
    flush: Callable[[], None]
    after_shadow: Callable[[], None]

    def _prepare_rules(self) -> None:
        assert isinstance(self.sink, UpdateSink)
        self.taken = hyperparameters(self.groups_now)
        for rule in self.sink.rules.values():
            rule.begin(self.groups_now, self.group_of, self.steps.numpy())

    def complete(self) -> None:
        """End a step: wait for every worker, count the updates."""
        self.engine.complete()
        self.steps[torch.from_numpy(self.sink.used)] += 1
        if self.settings.reuse_pages:
            allocator.trim()

    def wait_idle(self) -> None:
        """Raise unless the shared parameters are those between two steps."""
        self.control.check()
        if self.bridge is not None:
            self.bridge.arrive_all()
        if self.engine.begun:
            raise ParallelError(
                "a backward pass has been synchronised but step() was not called: the shared parameters are "
                "half updated until then. If its gradients are not wanted (a discriminator's in its generator's "
                "pass, say), run it under no_sync() or with requires_grad_(False)"
            )

    def check_frozen(self) -> None:
        """Raise if a parameter without a slot has begun to require a gradient."""
        for name, p in self._frozen:
            if p.requires_grad:
                raise ParallelError(
                    f"{name} was frozen when the module was distributed and requires a gradient now, which nobody would "
                    "synchronise: let it require one before distribute() and freeze it afterwards"
                )

    def read_all(self, field: Field) -> list[int]:
        return [self.control.read(field, worker) for worker in range(self.node.local_world)]


def share(layout: Layout, node: Node, timeout: float) -> Arena:
    """One arena for all workers of a node. Collective."""
    if not node.leads:
        arena = Arena(layout, fetch(node, timeout))
        arena.close_descriptor()
        return arena
    server = listen(node)
    arena = Arena.create(layout)
    watched = watch(node)

    def check() -> None:
        for worker in gone(watched):
            raise ended(node, worker)

    try:
        hand_out(server, arena.descriptor, node, timeout, check)
    finally:
        for descriptor in watched.values():
            os.close(descriptor)
    arena.close_descriptor()
    return arena
