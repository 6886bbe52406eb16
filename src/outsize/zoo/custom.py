"""The user's own workload: `path/to/file.py:build`, where `build()` returns `(module, batches, loss_fn)`.

The file runs as an ordinary module: naming it is the user's consent. What it returns is checked at once, so a mistake
is told before any training starts.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WorkloadError
from .workload import Batch, Batches, LossFn, Workload

_WANTED = "build() must return (module, batches, loss_fn), or the same with validation batches as a fourth"


def load_build(target: str, *, seed: int) -> Workload:
    """The workload that `target`, a `file.py:function` (`build` where none is named), builds.

    `module` is an `nn.Module`; `batches` an iterable of `(input, target)`, or a function that makes one; `input` a
    tensor or a tuple of tensors; `loss_fn(output, target)` gives a scalar. What runs dry starts again.

    Args:
        target: a file, and a function in it.
        seed: of torch's generator while it is called.

    Returns:
        the workload.

    Raises:
        WorkloadError: missing file or function, an exception in them, or another return value.
    """
    path, function = (target, "build") if target.endswith(".py") else target.rpartition(":")[::2]
    file = Path(path).expanduser()
    build = getattr(_run(file), function, None)
    if not callable(build):
        raise WorkloadError(
            f"{file} has no function {function!r}: define it, or name another as file.py:name"
        )
    torch.manual_seed(seed)
    built = _guarded(build, f"{file}:{function}()")
    if not isinstance(built, tuple) or len(built) not in (3, 4):
        raise WorkloadError(f"{target} returned {_kind(built)}: {_WANTED}")
    module, batches, loss_fn = built[:3]
    if not isinstance(module, nn.Module):
        raise WorkloadError(f"{target}: module is {_kind(module)}, not an nn.Module: {_WANTED}")
    if not callable(loss_fn):
        raise WorkloadError(f"{target}: loss_fn is {_kind(loss_fn)}, not callable: {_WANTED}")
    return Workload(
        name=target,
        module=module.train(),
        batches=_stream(batches, f"{target}: batches", endless=True),
        validation=_stream(built[3], f"{target}: validation", endless=False) if len(built) == 4 else _none,
        loss_fn=_scalar(loss_fn, target),
        data="the user's own",
        batch_size=0,
    )


def _none() -> Iterator[Batch]:
    return iter(())


def _run(file: Path) -> ModuleType:
    if file.suffix != ".py" or not file.is_file():
        raise WorkloadError(f"no Python file at {str(file)!r}: give path/to/file.py:build")
    name = f"outsize_user_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise WorkloadError(f"{file} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    sys.path.insert(0, str(file.resolve().parent))  # so that the file's neighbours can be imported
    _guarded(lambda: spec.loader.exec_module(module), str(file))  # type: ignore[union-attr]
    return module


def _guarded(call: Callable[[], Any], where: str) -> Any:
    """Runs the user's code; what it raises is told with its own file and line."""
    try:
        return call()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkloadError(
            f"{where} raised {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
        ) from error


def _stream(batches: Any, what: str, *, endless: bool) -> Batches:
    """A factory of iterators, whether the user gave a function, a list or loader, or a generator."""
    if not callable(batches) and not isinstance(batches, Iterable):
        raise WorkloadError(f"{what} is {_kind(batches)}, neither an iterable nor a function that makes one")
    once = isinstance(batches, Iterator)
    first: list[Any] = []

    def restart() -> Iterator[Any]:
        if once:  # a generator: its first item is kept so that looking at it loses nothing
            if not first:
                first.extend(itertools.islice(batches, 1))
            return itertools.chain(first, batches)
        return iter(batches() if callable(batches) else batches)

    def make() -> Iterator[Batch]:
        while True:
            count = 0
            for item in restart():
                count += 1
                yield _batch(item, what)
            if not count:
                raise WorkloadError(f"{what} yields nothing")
            if once or not endless:
                return

    return make


def _batch(item: Any, what: str) -> Batch:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise WorkloadError(f"{what} yields {_kind(item)}, not (input, target)")
    args, target = item
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    if not args or not all(isinstance(arg, Tensor) for arg in args):
        raise WorkloadError(f"{what}: an input is {_kind(args)}, not a tensor or a tuple of tensors")
    return Batch(args, target)


def _scalar(loss_fn: Callable[[Any, Any], Any], target: str) -> LossFn:
    def checked(output: Any, wanted: Any) -> Tensor:
        loss = loss_fn(output, wanted)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise WorkloadError(f"{target}: loss_fn returned {_kind(loss)}, not a scalar tensor")
        return loss

    return checked


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(type(v).__name__ for v in value[:4])})"
    return f"a {type(value).__name__}"
