"""What a program may say means in the model what it means in Python: the odd corners, each against the program itself."""

import random

import pytest

from outsize.errors import NpiError
from outsize.programs import npi
from tests.programs.npi.corners import (
    PROGRAMS,
    a_default_of_the_past,
    a_function_called_copy,
    closures_of_one_name,
)
from tests.programs.npi.random_programs import outcome, rows_machine

DIGITS = range(10)


def inputs(count, longest, seed=0, domain=DIGITS):
    source = random.Random(seed)
    cells = [[source.choices(DIGITS, k=source.randint(0, longest)) for _ in "pq"] for _ in range(count)]
    return [lambda lists=lists: [npi.Tape(x, domain=domain).at() for x in lists] for lists in cells]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_the_rows_of_a_program_do_what_it_does(program):
    template = npi.parameterize(npi.trace(program, inputs(60, 4)))
    machine = rows_machine(template)
    ended = 0
    for make in inputs(80, 6, 1):
        want = outcome(lambda heads: program(*heads), make)
        assert outcome(lambda heads: machine.run([heads]), make) == want
        ended += want != "fails"
    assert ended >= 20


@pytest.mark.parametrize("program", [a_function_called_copy, closures_of_one_name], ids=lambda p: p.__name__)
def test_and_so_does_what_was_learned(program):
    template = npi.parameterize(npi.trace(program, inputs(60, 4)))
    model = npi.train(template)
    certificate = npi.verify(template, model)
    assert certificate.holds, certificate.not_proved
    assert "copy" not in template.sites


def test_an_entry_with_a_constant_needs_a_pointer_for_it():
    with pytest.raises(NpiError, match="takes 3 different pointers"):
        npi.trace(a_default_of_the_past, inputs(1, 3))


def test_a_wider_primitive_is_not_known_to_end():
    """It answers what the program's tapes do not hold, and there nothing was proved."""
    model = npi.swap(npi.shipped("topological_sort"), "unseen_2", {(0,): 1, (1,): 0, (2,): 0, (3,): 1})
    certificate = npi.verify(npi.template_of("topological_sort"), model)
    assert certificate.holds, certificate.not_proved
    assert not certificate.ends
    assert any("tapes do not hold" in fact for fact in certificate.not_proved)
    assert model.certified(certificate).ends == ""
