"""The dirty example, from its files to a model: it asserts every figure itself, and tells them."""

from __future__ import annotations

import re

import pytest

from examples.dirty import demo


def test_every_line_of_the_dirty_files_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    told = capsys.readouterr().out
    sums = re.findall(r"([\d,]+) read = ([\d,]+) accepted \+ ([\d,]+) quarantined \+ ([\d,]+) duplicates", told)
    assert len(sums) == 3
    for read, *parts in sums:
        assert _number(read) == sum(_number(part) for part in parts)
    assert "lateness-1: release" in told


def _number(text: str) -> int:
    return int(text.replace(",", ""))
