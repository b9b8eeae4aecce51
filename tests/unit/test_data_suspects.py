"""Personal data is suspected by what cells look like, and where that says too little, by the name of the column."""

from __future__ import annotations

import polars as pl
import pytest

from flyball.data.drafts import suspects

INNOCENT = {
    "order_number": ["100200300", "100200301", "100200302", "100200303"],
    "card_like": ["4111111111111112", "4111111111111113", "5500005555555558", "340000000000000"],  # Luhn says no
    "iban_like": ["DE89370400440532013001"] * 4,
    "version": ["1.2.3.4.5", "10.0", "999.1.1.1", "1.1.1"],
    "hostname": ["alpha", "beta", "gamma", "delta"],
    "amount": ["12.50", "99.99", "1.00", "0.10"],
    "when": ["2013-01-05", "2013-01-06", "2013-01-07", "2013-01-08"],
}


@pytest.mark.parametrize(
    ("column", "cells", "kind"),
    [
        ("contact", ["ann@example.com", "write to bob.x+y@mail.example.org!", "none", "c@d.io"], "email"),
        ("paid_with", ["4111 1111 1111 1111", "5500005555555559", "3400-000000-00009", "4012888888881881"], "card"),
        (
            "account",
            ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606", None],
            "iban",
        ),
        ("tax", ["123-45-6789", "078-05-1120", "219-09-9999", "457-55-5462"], "ssn"),
        ("ssn", ["123456789", "078051120", "219099999", "457555462"], "ssn"),
        ("client", ["192.168.0.1", "10.0.0.255", "2001:db8::1", "::1"], "ip"),
        ("call", ["+49 30 123456", "(212) 555-0187", "212-555-0187", "+1 212 555 0187"], "phone"),
        ("PhoneNumber", ["2565938310", "2565938311", "2565938312", "2565938313"], "phone"),
        ("date_of_birth", ["1990-01-05", "1984-02-06", "2001-03-07", "1950-04-08"], "date of birth"),
        ("lastName", ["Müller", "O'Brien", "van der Berg", "García"], "name"),
        ("who", ["John Smith", "Doe, Mary", "Anna Kowalska", "Zzz"], "name"),
        ("where", ["12 Main Street", "350 Fifth Ave", "Hauptstraße 5", "1 Elm Rd"], "address"),
    ],
)
def test_it_is_suspected(column: str, cells: list[str | None], kind: str) -> None:
    found = suspects.suspects(pl.DataFrame({column: cells, **INNOCENT}))
    assert {name: s.kind for name, s in found.items()} == {column: kind}
    assert 0.5 <= found[column].share <= 1


def test_numbers_and_times_are_looked_at_too() -> None:
    frame = pl.DataFrame({"mobile": [2125550187, 2125550188], "born": ["1990-01-05", "1991-01-05"], "n": [1, 2]})
    found = suspects.suspects(frame.with_columns(pl.col("born").str.to_date()))
    assert {name: s.kind for name, s in found.items()} == {"mobile": "phone", "born": "date of birth"}


def test_a_sample_is_bounded_and_reaches_the_end() -> None:
    rows = pl.LazyFrame({"n": range(200_000)})
    looked = suspects.sample(rows)["n"]
    assert looked.head(suspects.FIRST).to_list() == list(range(suspects.FIRST))
    assert len(looked) < 1.2 * (suspects.FIRST + suspects.SPREAD)
    assert looked.max() > 199_900  # type: ignore[operator]


@pytest.mark.parametrize("digits", ["4111111111111111", "79927398713", "0"])
def test_luhn(digits: str) -> None:
    assert suspects.luhn(digits)
    assert not suspects.luhn(digits[:-1] + str((int(digits[-1]) + 1) % 10))
