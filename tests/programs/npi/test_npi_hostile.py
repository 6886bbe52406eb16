"""Weights files of another hand: what they say is looked at once, at the door; what they claim is not believed."""

import copy
import dataclasses
import json
import random
import struct

import numpy as np
import pytest
import torch

from outsize.errors import NpiError
from outsize.native import available
from outsize.programs import npi
from outsize.programs.npi.compiled import Compiled
from outsize.programs.npi.library import LIBRARY
from outsize.programs.npi.store import WEIGHTS

ENGINES = ("network", "tables", "native") if available() else ("network", "tables")


def opened(name):
    raw = (WEIGHTS / f"{name}.safetensors").read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8 : 8 + n])
    return head, json.loads(head["__metadata__"]["outsize.npi"]), raw[8 + n :]


def written(path, head, about, body):
    head = {**head, "__metadata__": {"outsize.npi": about if isinstance(about, str) else json.dumps(about)}}
    data = json.dumps(head).encode()
    data += b" " * (-len(data) % 8)
    path.write_bytes(struct.pack("<Q", len(data)) + data + body)
    return path


def edited(tmp_path, name, change):
    head, about, body = opened(name)
    change(about)
    return written(tmp_path / "edited.safetensors", head, about, body)


def put(*keys, to):
    """An edit: the field at a path of keys becomes `to`, or what `to` makes of it."""

    def change(about):
        *way, last = keys
        for key in way:
            about = about[key]
        about[last] = to(about[last]) if callable(to) else to

    return change


FIRST = ("controller", "tuples", 1, 0)
DOMAIN = ("primitives", "f", "domains", 0)
CLASSES = ("primitives", "f", "classes")
DAMAGE = {
    "a negative register": put(*FIRST, to="p-1"),
    "a register of digits that are not ASCII": put(*FIRST, to="p\u0661"),
    "a register of a kind that is not there": put(*FIRST, to="q0"),
    "a register with a sign": put(*FIRST, to="p+1"),
    "a register with a leading zero": put(*FIRST, to="p00"),
    "a register with a space": put(*FIRST, to="p 1"),
    "a huge register": put(*FIRST, to="p99999"),
    "a register that is a number": put(*FIRST, to=0),
    "a tuple that is text": put("controller", "tuples", 1, to="p0"),
    "a tuple twice": put("controller", "tuples", to=lambda t: [*t[:-1], t[0]]),
    "an unknown system call": put("controller", "keys", 0, to="jump"),
    "a call of an unknown program": put("controller", "keys", 0, to="call nothing"),
    "a key twice": put("controller", "keys", to=lambda k: [*k[:-1], k[0]]),
    "no program": put("controller", "programs", to=[]),
    "a program without a name": put("controller", "programs", 0, to=""),
    "a width of a billion": put("controller", "hidden", to=10**9),
    "a width that is true": put("controller", "hidden", to=True),
    "a width that is a float": put("controller", "hidden", to=64.0),
    "a negative width": put("controller", "hidden", to=-1),
    "another width": put("controller", "hidden", to=63),
    "boolean answers": put(*CLASSES, to=lambda c: [False, True, *c[2:]]),
    "float answers": put(*CLASSES, to=lambda c: [x + 0.5 for x in c]),
    "answers out of order": put(*CLASSES, to=lambda c: c[::-1]),
    "an answer twice": put(*CLASSES, to=lambda c: [c[0], *c[:-1]]),
    "answers of more than 64 bits": put(*CLASSES, to=lambda c: [*c[:-1], 1 << 63]),
    "no answers": put(*CLASSES, to=[]),
    "a boolean domain": put(*DOMAIN, to=lambda d: [False, True, *d[2:]]),
    "a domain out of order": put(*DOMAIN, to=lambda d: d[::-1]),
    "a domain of text": put(*DOMAIN, to=lambda d: [str(x) for x in d]),
    "an empty domain": put(*DOMAIN, to=[]),
    "a domain of more than 64 bits": put(*DOMAIN, to=lambda d: [*d[:-1], 1 << 70]),
    "no inputs": put("primitives", "f", "domains", to=[]),
    "sixty inputs": put("primitives", "f", "domains", to=lambda d: d * 60),
    "one-hot without end": put("primitives", "f", "one_hot_limit", to=10**12),
    "an unknown field": put("surprise", to=1),
    "no pointers": put("pointers", to="2"),
    "57 pointers": put("pointers", to=57),
    "a primitive without a check": put("checks", to={}),
    "a check of another kind": put("checks", "f", "kind", to="certain"),
    "a bound of more than one": put("checks", "f", "error_bound", to=7),
    "a name that is a list": put("name", to=["map"]),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_field_that_is_not_what_it_must_be_is_refused(tmp_path, what):
    with pytest.raises(NpiError, match="not a trained template"):
        npi.load(edited(tmp_path, "map", DAMAGE[what]))


def test_metadata_that_is_not_json(tmp_path):
    head, _, body = opened("map")
    for text in ("", "[", "[]", "null", "{}", "[" * 100_000, '{"name": NaN}'):
        with pytest.raises(NpiError, match="not a trained template"):
            npi.load(written(tmp_path / "x", head, text, body))


def spoilt(change):
    """Tensors of the map model, changed, beside its description."""
    from safetensors.torch import load_file, save_file

    def make(path):
        tensors = load_file(WEIGHTS / "map.safetensors")
        change(tensors)
        _, about, _ = opened("map")
        save_file(tensors, path, metadata={"outsize.npi": json.dumps(about)})
        return path

    return make


BIAS = "primitive.f.layers.4.bias"
TENSORS = {
    "NaN": spoilt(lambda t: t[BIAS].fill_(float("nan"))),
    "infinite": spoilt(lambda t: t["controller.heads.bias"].fill_(float("inf"))),
    "float64": spoilt(lambda t: t.update({BIAS: t[BIAS].double()})),
    "integers": spoilt(lambda t: t.update({BIAS: t[BIAS].long()})),
    "another shape": spoilt(lambda t: t.update({BIAS: t[BIAS][:-1].clone()})),
    "missing": spoilt(lambda t: t.pop(BIAS)),
    "one too many": spoilt(lambda t: t.update(more=torch.zeros(3))),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_are_float32_finite_and_just_those(tmp_path, what):
    with pytest.raises(NpiError, match="not a trained template"):
        npi.load(TENSORS[what](tmp_path / "x.safetensors"))


def test_a_thousand_damaged_files_load_or_are_refused(tmp_path):
    """Bytes of the header flipped at random: an error, or a model that runs to an end or an error."""
    source, path = random.Random(5), tmp_path / "f.safetensors"
    raw = (WEIGHTS / "fold.safetensors").read_bytes()
    size = 8 + struct.unpack("<Q", raw[:8])[0]
    ways = set()
    for i in range(1_000):
        data = bytearray(raw)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(size) if i % 2 else source.randrange(8, size)
            data[at] = source.randrange(256) if i % 3 else ord(source.choice('0123456789-pv",[]{}'))
        path.write_bytes(data)
        try:
            model = npi.load(path)
            heads = LIBRARY["fold"].encode([1, 2, 3])
            npi.run(model, [heads], engine=ENGINES[-1], limits=npi.Limits(steps=500, depth=50))
            ways.add("runs")
        except NpiError:
            ways.add("refused")
    assert ways == {"runs", "refused"}


# -- what a sound file claims


def test_a_file_cannot_say_that_it_ends(tmp_path):
    model = npi.shipped("map")
    assert model.ends == model.fingerprint()
    path = tmp_path / "m.safetensors"
    npi.save(model, path)
    assert npi.load(path).ends == ""


SWAPPED = {"left": "right", "right": "left"}


def verdict(tmp_path, name, change):
    return npi.verify(npi.template_of(name), npi.load(edited(tmp_path, name, change)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("map", put(*CLASSES, to=lambda c: [x + 1000 for x in c])),
        ("map", put(*DOMAIN, to=lambda d: [x + 1 for x in d])),
        ("bubble_sort", put("controller", "keys", to=lambda k: [SWAPPED.get(x, x) for x in k])),
        ("bubble_sort", put("controller", "tuples", to=lambda t: [t[1], t[0], *t[2:]])),
    ],
    ids=["answers", "domain", "keys", "registers"],
)  # fmt: skip
def test_edited_words_are_another_model(tmp_path, name, change):
    assert not verdict(tmp_path, name, change).holds
    model, other = npi.shipped(name), npi.load(tmp_path / "edited.safetensors")
    assert other.fingerprint() != model.fingerprint()
    certificate = npi.verify(npi.template_of(name), model)
    with pytest.raises(NpiError, match="not about this model"):
        certificate.match(other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("pointers", to=5), "pointers 5, the program has 2"),
        (put("controller", "programs", to=lambda p: p[::-1]), "entry map_while1"),
        (lambda about: [about[k].pop("f") for k in ("primitives", "checks")], "tensors that nothing uses"),
    ],
)
def test_a_model_of_another_make_is_refused(tmp_path, change, says):
    with pytest.raises(NpiError, match=says):
        verdict(tmp_path, "map", change)


def test_a_model_without_a_primitive_is_refused():
    model = npi.shipped("map")
    less = dataclasses.replace(model, primitives={}, checks={})
    with pytest.raises(NpiError, match=r"primitives \[\], the program has \['f'\]"):
        npi.verify(npi.template_of("map"), less)


# -- the C machine by itself


@pytest.mark.skipif(not available(), reason="the C module is not built")
@pytest.mark.parametrize("name", ["topological_sort", "merge_sort", "multiplication"])
def test_the_c_machine_minds_every_index(name):
    """Tables that no door has seen: any word of them may be wrong, and the answer is an error or an end."""
    model, source = npi.shipped(name), random.Random(1)
    example = {
        "topological_sort": ([[1, 2], [2], []],),
        "merge_sort": ([3, 1, 2],),
        "multiplication": ("12", "3"),
    }
    ways = set()
    made = Compiled(copy.deepcopy(model.tables), model.registers, model.primitives)
    arrays = [made.ops, made.tables.act, made.tables.follow, made.tables.start]
    sound = [array.copy() for array in arrays]
    for _ in range(400):
        for array, words in zip(arrays, sound):
            array[...] = words
        for _ in range(source.randint(1, 4)):
            array = source.choice(arrays).reshape(-1)
            array[source.randrange(len(array))] = source.choice(
                [-1, -2, 0, 1, 2, 3, 5, 9, 63, 1000, 2**31 - 1, -(2**31)]
            )
        try:
            made.run([LIBRARY[name].encode(*example[name])], npi.Limits(steps=2_000, depth=100))
            ways.add("ends")
        except NpiError as error:
            ways.add("is not there" in str(error))
    assert ways == {"ends", True, False}


def test_tables_are_of_64_bits():
    assert npi.shipped("filter").primitives["keep"].table().dtype == np.int64
