import pytest
from hypothesis import given
from hypothesis import strategies as st

from outsize.errors import OutsizeError, UnitError
from outsize.units import format_bytes, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1.5 GiB", 1536 * 2**20),
        ("800MB", 800_000_000),
        (4096, 4096),
        ("4096", 4096),
        ("1e3", None),
        (".5 kib", 512),
    ],
)
def test_bytes(text: int | str, count: int | None) -> None:
    if count is None:
        with pytest.raises(UnitError):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == count


def test_percent_needs_a_whole() -> None:
    assert parse_bytes("60%", whole=1000) == 600
    with pytest.raises(UnitError, match="percentage"):
        parse_bytes("60%")


@pytest.mark.parametrize("text", ["", "lots", "-3 GB", "0", 0, -1, True, 1.5, None, "5 GB 3", "3 parsecs"])
def test_nonsense_is_refused(text: object) -> None:
    with pytest.raises(OutsizeError):
        parse_bytes(text)  # type: ignore[arg-type]


@given(st.integers(1, 2**50))
def test_formatting_keeps_two_digits(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.01)


def test_seconds() -> None:
    assert [format_seconds(s) for s in (75, 1.5, 0.0021, 3e-6)] == ["1 min 15 s", "1.50 s", "2.10 ms", "3 µs"]
