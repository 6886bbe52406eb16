"""Limits of control groups as Slurm, systemd and containers set them, from made-up /proc and /sys trees."""

from pathlib import Path

import pytest

from outsize.device import groups, memory

GIB = 2**30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
NO_LIMIT = "9223372036854771712"


def tree(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def gib(n: float) -> str:
    return str(int(n * GIB))


CASES = {
    "systemd service": ("0::/system.slice/a.service\n", V2, {"system.slice/a.service/memory.max": gib(3)}, 3),
    "its slice": (
        "0::/a.slice/b.service\n", V2, {"a.slice/b.service/memory.max": "max", "a.slice/memory.max": gib(5)}, 5,
    ),
    "throttled": (
        "0::/a.slice\n", V2, {"a.slice/memory.max": gib(5), "a.slice/memory.high": gib(4)}, 4,
    ),
    "slurm, version 2": (
        "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n", V2,
        {"system.slice/slurmstepd.scope/job_7/memory.max": gib(8),
         "system.slice/slurmstepd.scope/job_7/step_0/user/task_0/memory.max": "max"}, 8,
    ),
    "slurm, version 1": (
        "5:cpu,cpuacct:/slurm\n4:memory:/slurm/uid_1/job_7/step_0\n0::/\n", V1,
        {"memory/slurm/uid_1/job_7/step_0/memory.limit_in_bytes": NO_LIMIT,
         "memory/slurm/uid_1/job_7/memory.limit_in_bytes": gib(2),
         "memory/memory.limit_in_bytes": NO_LIMIT}, 2,
    ),
    "container with a namespace": ("0::/\n", V2, {"memory.max": gib(6)}, 6),
    "container without one": (
        "0::/docker/abc\n", V2.replace(" / /sys", " /docker/abc /sys"), {"memory.max": gib(7)}, 7,
    ),
    "container, part of the tree": (
        "0::/docker/abc/inner\n", V2.replace(" / /sys", " /docker/abc /sys"),
        {"memory.max": gib(7), "inner/memory.max": gib(1)}, 1,
    ),
    "outside of what is mounted": ("0::/../other\n", V2, {"memory.max": gib(9)}, 9),
    "both versions": (
        "4:memory:/m\n0::/u\n", V1 + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
        {"memory/m/memory.limit_in_bytes": gib(4), "unified/u/memory.max": gib(3)}, 3,
    ),
    "none": ("0::/a\n", V2, {"a/memory.max": "max"}, None),
    "another controller's": ("4:cpu:/x\n", V1, {"memory/x/memory.limit_in_bytes": gib(1)}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_on_the_way_up(tmp_path: Path, case: str) -> None:
    cgroup, mounts, files, expected = CASES[case]
    found = groups.limit_bytes(tree(tmp_path, cgroup, mounts, files))
    assert found == (None if expected is None else expected * GIB)


def test_what_is_free_is_counted_at_each_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/a/b\n", V2, {
        "a/memory.max": gib(10), "a/memory.current": gib(9), "a/memory.stat": f"anon 5\ninactive_file {gib(3)}",
        "a/b/memory.max": gib(6), "a/b/memory.current": gib(1),
    })  # fmt: skip
    assert groups.free_bytes(root) == 4 * GIB
    (root / "sys/fs/cgroup/a/memory.current").write_text(gib(20))
    assert groups.free_bytes(root) == 0


def test_without_proc(tmp_path: Path) -> None:
    assert groups.limit_bytes(tmp_path) is None
    assert groups.free_bytes(tmp_path) is None


def test_the_meter_heeds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "limit_bytes", lambda: 12345)
    monkeypatch.setattr(groups, "free_bytes", lambda: 123)
    assert memory.total_bytes() == 12345
    assert memory.free_bytes() == 123
