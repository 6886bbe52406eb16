"""The data: disjoint files, the shift by one byte, masks, the microscope's physics, the user's arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch

from outsize import zoo
from outsize.errors import WorkloadError
from outsize.zoo.data import images, npz, text, volume


def write_files(folder: Path, count: int) -> None:
    for index in range(count):
        (folder / f"{index}.txt").write_bytes(bytes([65 + index]) * 50)


def test_files_are_divided_not_windows(tmp_path: Path) -> None:
    write_files(tmp_path, 20)
    corpus = text.folder(tmp_path, seed=1)
    train, validation = set(corpus.train.tolist()), set(corpus.validation.tolist())
    assert train & validation == {0}
    assert len(train | validation) == 21
    assert torch.equal(corpus.train, text.folder(tmp_path, seed=1).train)
    assert not torch.equal(corpus.validation, text.folder(tmp_path, seed=2).validation)


def test_standard_library_is_read_without_its_tests() -> None:
    corpus = text.standard_library(seed=0)
    assert len(corpus.train) > 2e6
    assert len(corpus.validation) > 1e5
    assert b"import unittest" in bytes(corpus.train.numpy().tobytes())


def test_targets_are_the_next_bytes() -> None:
    data = torch.arange(200, dtype=torch.uint8)
    batch = next(text.next_byte(data, batch=3, context=16, seed=0))
    assert torch.equal(batch.args[0] + 1, batch.target)
    (last, *_) = text.next_byte_validation(data, batch=2, context=16, count=1)
    assert last.args[0][0, 0] == 0
    assert last.target[-1, -1] == 199


def test_only_masked_bytes_are_targets() -> None:
    data = torch.arange(200, dtype=torch.uint8)
    source = text.next_byte(data, batch=4, context=32, seed=0)
    plain = next(text.next_byte(data, batch=4, context=32, seed=0)).args[0]
    batch = next(text.masked(source, share=0.2, mask_id=256, seed=1))
    hidden = batch.args[0] == 256
    assert 0.1 < hidden.float().mean() < 0.35
    assert torch.equal(batch.target[hidden], plain[hidden])
    assert (batch.target[~hidden] == -100).all()
    assert torch.equal(batch.args[0][~hidden], plain[~hidden])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_volumes_hold_every_class_and_photons(dimensions: int) -> None:
    batch = next(volume.volumes(side=24, dimensions=dimensions, batch=3, seed=0, part=0))
    (x,), classes = batch
    assert x.shape == (3, 1, *[24] * dimensions)
    assert classes.unique().tolist() == [0, 1, 2]
    means = [x[:, 0][classes == c].mean() for c in range(3)]
    assert means[0] < means[1] < means[2]


def test_light_is_lost_with_depth() -> None:
    rng = np.random.default_rng(0)
    scope = volume.Microscope(absorption=3.0, read_noise=0.0, background=0.0)
    bright = np.zeros(16)
    for _ in range(60):
        counts, classes = volume.simulate(16, 3, rng, scope)
        bright += np.array(
            [counts[d][classes[d] > 0].mean() if (classes[d] > 0).any() else 0 for d in range(16)]
        )
    assert bright[:4].mean() > bright[-4:].mean() + 10


def test_samples_of_a_part_never_meet_the_other() -> None:
    samples = images.digits(seed=0)
    train = {row.numpy().tobytes() for row in samples.train[0]}
    validation = {row.numpy().tobytes() for row in samples.validation[0]}
    assert len(samples.train[0]) + len(samples.validation[0]) == 1797
    assert len(train & validation) <= 5  # the set itself holds a few identical digits


def test_an_epoch_sees_every_sample_once() -> None:
    part = (torch.arange(12.0)[:, None], torch.arange(12))
    stream = images.shuffled(part, batch=4, seed=0)
    epochs = [sorted(torch.cat([next(stream).target for _ in range(3)]).tolist()) for _ in range(2)]
    assert epochs == [list(range(12))] * 2
    assert [len(b.target) for b in images.in_order(part, batch=5, count=9)] == [5, 5]


def test_arrays_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.random.default_rng(0).random((10, 1, 16, 16)), y=np.arange(10) % 3)
    workload = zoo.load("resnet50", seed=0, tiny=True, batch=2, data=path)
    batch = workload.example()
    assert workload.module(*batch.args).shape == (2, 3)
    assert str(path) in workload.describe()
    masks = tmp_path / "masks.npz"
    np.savez(masks, x=np.zeros((4, 1, 8, 8)), y=np.ones((4, 8, 8), dtype=np.uint8))
    segmented = zoo.load("unet2d", seed=0, tiny=True, size=8, batch=2, data=masks)
    assert segmented.module(*segmented.example().args).shape == (2, 2, 8, 8)
    with pytest.raises(WorkloadError, match="--size"):
        zoo.load("unet2d", seed=0, tiny=True, size=16, data=masks)


def test_bad_data_are_told(tmp_path: Path) -> None:
    pickled = tmp_path / "objects.npz"
    np.savez(pickled, x=np.array([{}], dtype=object), y=np.zeros(1))
    flat = tmp_path / "flat.npz"
    np.savez(flat, x=np.zeros((3, 4)), y=np.zeros(3))
    short = tmp_path / "short.txt"
    short.write_text("too short")
    one = tmp_path / "one"
    one.mkdir()
    for name, path, said in [
        ("resnet50", pickled, "not a .npz file"),
        ("resnet50", tmp_path / "missing.npz", "not a .npz file"),
        ("resnet50", flat, "4 dimensions"),
        ("gpt", tmp_path / "missing", "no file or folder"),
        ("gpt", short, "give more text"),
        ("gpt", one, "holds 0 files"),
    ]:
        with pytest.raises(WorkloadError, match=said):
            zoo.load(name, seed=0, tiny=True, data=path)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((4, 1, 8, 8)), np.array([0, 1, 10**9, 1]), "number the classes from 0"),
        (np.zeros((4, 1, 8, 8)), np.array([0, 1, 0.5, 1]), "number the classes from 0"),
        (np.zeros((4, 1, 8, 8)), np.array([0, 1, np.nan, 1]), "number the classes from 0"),
        (np.full((4, 1, 8, 8), np.nan), np.zeros(4), "no numbers"),
        (np.full((4, 1, 8, 8), 1e300), np.zeros(4), "no numbers"),
        (np.zeros((4, 1, 0, 8)), np.zeros(4), "none of them empty"),
        (np.zeros((4, 1, 8, 8), np.complex64), np.zeros(4), "numbers are needed"),
        (np.zeros((4, 1, 8, 8)), np.array(["a", "b", "c", "d"]), "numbers are needed"),
    ],
)  # fmt: skip
def test_arrays_that_no_network_learns_from_are_told(tmp_path: Path, x: object, y: object, said: str) -> None:
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    with pytest.raises(WorkloadError, match=said):
        images.arrays(tmp_path / "mine.npz", seed=0, dimensions=4)


def test_an_archive_that_unpacks_to_more_than_it_says_or_than_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_SUSPICIOUS_BYTES", 2**20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((4, 1, 512, 512), np.float32), y=np.zeros(4))
    assert path.stat().st_size < 2**15
    with pytest.raises(WorkloadError, match="times its size; write it with numpy"):
        images.arrays(path, seed=0, dimensions=4)
    np.savez(path, x=np.zeros((4, 1, 8, 8)), y=np.zeros(4))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(4, 1, 8, 8)", b"(9, 9, 9, 9)"))
    with pytest.raises(WorkloadError, match=r"x.npy describes 52,488 bytes|Bad CRC|is not a .npz file"):
        images.arrays(path, seed=0, dimensions=4)
