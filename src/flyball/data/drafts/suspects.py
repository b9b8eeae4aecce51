"""Suspects: columns whose cells look like personal data, found by pattern, so that a person can declare them personal.

Looked at are a bounded sample of the rows, and the name of the column where a pattern alone says too little (nine digits may
be anything). Numbers with check digits are computed, not only matched: a card by Luhn's formula (ISO/IEC 7812-1), an account
by its remainder modulo 97 (ISO 13616). A suspect is a suspicion: it names a column, a kind and a share, and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

from flyball.data.source import LINE

LEAST = 0.2
"""The share of the filled cells from which on a column is suspected."""

FIRST, SPREAD = 5_000, 15_000
"""A sample is so many rows from the start, and about so many more, evenly spread over the rest."""

_INDEX = "\0row"  # no column of a file has such a name
_CELLS = 4_000
"""Different cells of one column that are looked at."""


class Suspect(NamedTuple):
    """What a column seems to hold, and the share of its filled cells that look so."""

    kind: str
    share: float


def sample(rows: pl.LazyFrame | pl.DataFrame, height: int | None = None) -> pl.DataFrame:
    """Up to `FIRST` rows from the start and about `SPREAD` of the rest, evenly spread; two passes, little memory.

    Args:
        rows: any frame.
        height: how many rows there are, where that is known.
    """
    frame = rows.lazy()
    if height is None:
        height = int(frame.select(pl.len()).collect(engine="streaming").item())
    if height <= FIRST + SPREAD:
        return frame.collect(engine="streaming")
    step = max(1, (height - FIRST) // SPREAD)
    chosen = (pl.col(_INDEX) < FIRST) | ((pl.col(_INDEX) - FIRST) % step == 0)
    return frame.with_row_index(_INDEX).filter(chosen).drop(_INDEX).collect(engine="streaming")


def suspects(rows: pl.LazyFrame | pl.DataFrame, *, least: float = LEAST) -> dict[str, Suspect]:
    """Column -> what it seems to hold, for text and whole numbers; columns that seem innocent are left out.

    Kinds: email, card, iban, ssn, ip, phone, date of birth, name, address.

    Args:
        rows: any frame; a bounded sample of it is looked at.
        least: the share of the filled cells of a column that must look so.
    """
    looked = sample(rows)
    found = {name: _suspect(name, looked[name], least) for name in looked.columns if name != LINE}
    return {name: suspect for name, suspect in found.items() if suspect is not None}


def _suspect(name: str, cells: pl.Series, least: float) -> Suspect | None:
    hints = frozenset(kind for kind, hint in _HINTS.items() if hint.search(_words(name)))
    if cells.dtype.is_temporal():
        return Suspect("date of birth", 1.0) if "date of birth" in hints and cells.count() else None
    if not (isinstance(cells.dtype, (pl.String, pl.Categorical, pl.Enum)) or cells.dtype.is_integer()):
        return None
    counts = cells.drop_nulls().cast(pl.String).value_counts(sort=True, name="\0n").head(_CELLS)
    said = {text.strip(): n for text, n in counts.iter_rows() if text.strip()}
    filled = sum(said.values())
    if not filled:
        return None
    for kind, looks in _LOOKS.items():
        share = sum(n for text, n in said.items() if looks(text[:500], hints)) / filled
        if share >= least:
            return Suspect(kind, share)
    return None


def _words(name: str) -> str:
    """A column's name as lower-case words between single spaces: `firstName` and `first_name` are one."""
    return " " + re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip().lower() + " "


_HINTS: Mapping[str, re.Pattern[str]] = {
    kind: re.compile(rf" ({words}) ")
    for kind, words in {
        # A column that is only called "name" may name anything; its cells must then have given names in them.
        "name": "(first|last|middle|full|given|family|sur|maiden|user|customer|patient|client|person|employee|owner) ?name"
        "|surname|fname|lname|vorname|nachname|prenom",
        "not a name": "(file|host|domain|product|brand|item|station|city|country|state|table|column|school|company|airport"
        "|airline|beer|brewery|hospital|model|event|measure|condition|category|class|type|street|county) ?names?",
        "phone": "phone|telephone|tel|mobile|cell|fax|telefon|handy|(phone|mobile|cell|contact) ?(number|no|nr)",
        "ssn": "ssn|social security( number| no)?|social insurance( number)?|tax id|national id",
        "card": "card|credit card|cc|pan|(card|cc) ?(number|no|num)",
        "address": "address|street|addr|strasse|home address|address ?(line)? ?[123]",
        "date of birth": "dob|birth ?(day|date)|date of birth|born|geburtsdatum",
    }.items()
}

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24}(?![\w-])", re.IGNORECASE)
_SSN = re.compile(r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}")
_NINE = re.compile(r"(?!000|666|9)\d{3}(?!00)\d{2}(?!0000)\d{4}")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)")
_IPV6 = re.compile(r"(?=(?:[^:]*:){2,7}[^:]*$)[0-9a-f:]{2,39}", re.IGNORECASE)
_DIALLED = re.compile(
    r"\+\d{1,3}[ ./()-]{0,2}\d(?:[ ./()-]{0,2}\d){5,13}|\(?\d{3}\)[ .-]?\d{3}[ .-]?\d{4}|\d{3}([-.])\d{3}\1\d{4}"
)
_DIGITS = re.compile(r"\+?[\d ./()-]{7,22}")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_CARD = re.compile(r"(?:\d[ -]?){12,18}\d")
_DATE = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
_NAME = re.compile(r"[^\W\d_][\w'’.-]*(?:,? [^\W\d_][\w'’.-]*){0,4}")
_HOUSE = re.compile(
    r"\d{1,5}[a-z]? (?:[nsew]\.? )?[\w .'-]{2,40}"
    r"\b(?:st|street|ave|avenue|rd|road|blvd|lane|ln|drive|dr|way|court|ct|place|pl|highway|hwy)\b.*"
    r"|[^\W\d][\w .'-]{2,40}(?:straße|strasse|str\.|weg|platz|gasse|allee) \d{1,4} ?[a-z]?",
    re.IGNORECASE,
)

_NAMES = """
james mary john patricia robert jennifer michael linda william elizabeth david barbara richard susan joseph jessica
thomas sarah charles karen christopher lisa daniel nancy matthew betty anthony margaret mark sandra donald ashley
steven kimberly paul emily andrew donna joshua michelle kenneth carol kevin amanda brian melissa george deborah
edward stephanie ronald rebecca timothy sharon jason laura jeffrey cynthia ryan kathleen jacob amy gary angela
nicholas shirley eric anna jonathan emma stephen olivia larry sophia peter maria hans klaus anne julia katrin stefan
monika jan jean pierre marie luc jose juan carlos ana luis mohammed muhammad ahmed fatima ali omar wei li yuki
hiroshi priya raj ivan olga dmitri giulia marco luca sofia lars ingrid sven
"""
_GIVEN = frozenset(_NAMES.split())


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(d), 10)) if n % 2 else int(d) for n, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def mod97(account: str) -> bool:
    """Whether an international account number has its remainder of 1 modulo 97 (ISO 13616-1)."""
    turned = account[4:] + account[:4]
    return int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def _card(text: str, hints: frozenset[str]) -> bool:
    digits = re.sub(r"[ -]", "", text)
    # One number in ten passes Luhn by chance; those that card networks issue begin with 2 to 6.
    plausible = _CARD.fullmatch(text) is not None and digits[0] in "23456" and len(set(digits)) > 2
    return plausible and (len(digits) in (14, 15, 16) or "card" in hints) and luhn(digits)


def _iban(text: str, hints: frozenset[str]) -> bool:
    plain = text.replace(" ", "").upper()
    return _IBAN.fullmatch(plain) is not None and mod97(plain)


def _ssn(text: str, hints: frozenset[str]) -> bool:
    return bool(_SSN.fullmatch(text) or ("ssn" in hints and _NINE.fullmatch(text)))


def _phone(text: str, hints: frozenset[str]) -> bool:
    return bool(_DIALLED.fullmatch(text) or ("phone" in hints and _DIGITS.fullmatch(text)))


def _name(text: str, hints: frozenset[str]) -> bool:
    if "not a name" in hints or _NAME.fullmatch(text) is None:
        return False
    return "name" in hints or bool(_GIVEN & set(re.split(r"[ ,.]+", text.lower())))


_LOOKS: Mapping[str, Callable[[str, frozenset[str]], bool]] = {
    "email": lambda text, _: _EMAIL.search(text) is not None,
    "card": _card,
    "iban": _iban,
    "ssn": _ssn,
    "ip": lambda text, _: bool(_IPV4.fullmatch(text) or _IPV6.fullmatch(text)),
    "phone": _phone,
    "date of birth": lambda text, hints: "date of birth" in hints and _DATE.fullmatch(text) is not None,
    "name": _name,
    "address": lambda text, hints: bool(_HOUSE.fullmatch(text)) or ("address" in hints and any(map(str.isdigit, text))),
}
