"""The worked example of docs/parallel.md runs as written, on two workers."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "parallel.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "train.py").write_text(code[0])
    assert "torchrun --nproc-per-node 2 train.py" in page
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert re.search(r"^loss [0-2]\.\d+, \d+ chunks$", out.stdout, re.M), out.stdout + out.stderr
    (tmp_path / "more.py").write_text(code[0] + code[1])
    alone = subprocess.run(
        [sys.executable, "more.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert (tmp_path / "ckpt" / ".metadata").exists()
