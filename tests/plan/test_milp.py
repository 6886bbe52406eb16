"""Programs with nothing to decide, which the solver itself does not take."""

from outsize.plan.milp import Program


def test_rows_without_variables_hold_or_contradict() -> None:
    program = Program()
    answer = program.solve(1.0)
    assert answer is not None
    assert (answer.proved, answer.bound, answer.values) == (True, 0.0, {})
    program.at_least({}, 1.0)
    assert program.solve(1.0) is None
