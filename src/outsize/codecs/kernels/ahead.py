"""Compiles the programs without a GPU, to look at what they became.

Used by the tests and the benchmark to assert properties of the machine code: no register spilled, loads and
stores of whole tiles as wide as the hardware has them, shared memory within what lets several programs share
a multiprocessor.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CASES", "TARGETS", "Compiled", "compile_ahead"]

#: `(backend, architecture, threads per warp)`: A100, H100, MI300X.
TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}

_TYPES = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
_POINTERS = {
    "table": "*i32",
    "bitmap": "*i32",
    "state": "*i64",
    "counter": "*i64",
    "facts": "*i64",
    "index": "*i64",
}
#: Program and its constants, per element width.
CASES: Mapping[str, Mapping[str, Any]] = {
    "encode": {"FUSED": False, "MARK": 2},
    "encode, fused": {"FUSED": True, "MARK": 2},
    "count": {},
    "scan": {},
    "copy": {},
    "decode": {"VERIFY": False},
    "decode, verified": {"VERIFY": True},
    "mark": {"MARK": 2, "FLOAT": True},
    "select": {"CONSTANT": False},
    "digest": {},
}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """Facts read from the assembly.

    Attributes:
        shared_bytes: static shared memory of a program.
        spilled: registers, or bytes of thread-local memory, that registers were spilled to.
        loads, stores: bytes per thread and instruction of every global access, widest first.
        registers: per thread.
    """

    shared_bytes: int
    spilled: int
    registers: int
    loads: tuple[int, ...]
    stores: tuple[int, ...]


def compile_ahead(case: str, size: int, target: str) -> Compiled:
    """Compiles one of CASES for elements of `size` bytes and one of TARGETS."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from . import programs
    from .backend import warps

    program = getattr(programs, case.split(",")[0])
    constants = {**CASES[case], **({"SIZE": size} if "SIZE" in program.arg_names else {})}
    signature = {}
    for name in program.arg_names:
        pointer = f"*{_TYPES[size]}" if name in ("x", "y", "values") else _POINTERS.get(name)
        signature[name] = "constexpr" if name in constants else pointer or "i64"
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(program.arg_names)
        if signature[n].startswith("*")
    }
    source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps(size, hip=TARGETS[target][0] == "hip"), "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    return _read(made)


def _read(made: Any) -> Compiled:
    if "amdgcn" in made.asm:
        text = made.asm["amdgcn"]
        spilled = sum(int(n) for n in re.findall(r"\.[sv]gpr_spill_count:\s*(\d+)", text))
        registers = int(re.findall(r"\.vgpr_count:\s*(\d+)", text)[0])
        width = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "short": 2}
        found = {
            kind: [
                width.get(w, 1) for w in re.findall(rf"(?:global|buffer)_{kind}_(\w+?)(?:_d16\w*)?\s", text)
            ]
            for kind in ("load", "store")
        }
        loads, stores = found["load"], found["store"]
    else:
        registers, spilled = _resources(made.asm["cubin"])
        pattern = r"{}(?:\.\w+)*?\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)"
        loads, stores = (
            [int(v or 1) * int(b) // 8 for v, b in re.findall(pattern.format(kind), made.asm["ptx"])]
            for kind in ("ld", "st")
        )
    return Compiled(
        shared_bytes=made.metadata.shared, spilled=spilled, registers=registers,
        loads=tuple(sorted(loads, reverse=True)), stores=tuple(sorted(stores, reverse=True)),
    )  # fmt: skip


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers per thread and bytes of stack and local memory (where spilled registers go), by cuobjdump."""
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    used = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return used["REG"], used["STACK"] + used["LOCAL"]
