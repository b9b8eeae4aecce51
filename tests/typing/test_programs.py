"""The type checker is part of the surface: what must pass passes, and what must not is found, on its line, by its code.

One run of mypy over all programs, with the project's own settings. A line that should be wrong says so: `# E: code`, or
`# E: code, code`. A missing error is a failure, and so is one that nobody announced.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
_EXPECTED = re.compile(r"  # E: ([a-z-]+(?:, [a-z-]+)*)$")
_FOUND = re.compile(r"^(?P<file>.+?):(?P<line>\d+): error: (?P<text>.*)  \[(?P<code>[a-z-]+)\]$")

Errors = dict[str, dict[int, set[str]]]


def expected() -> Errors:
    found: Errors = {}
    for program in PROGRAMS:
        lines: dict[int, set[str]] = {}
        for number, line in enumerate(program.read_text().splitlines(), start=1):
            match = _EXPECTED.search(line)
            if match:
                lines[number] = set(match[1].split(", "))
        found[program.name] = lines
    return found


def found() -> Errors:
    # The project's own cache, which `make check` has warmed: the programs are all that is new.
    out, problems, _ = api.run(["--no-error-summary", "--no-pretty", *(str(p.relative_to(ROOT)) for p in PROGRAMS)])
    assert not problems
    errors: Errors = defaultdict(lambda: defaultdict(set))
    for line in out.splitlines():
        match = _FOUND.match(line)
        if match:
            errors[Path(match["file"]).name][int(match["line"])].add(match["code"])
    return errors


def test_the_checker_finds_what_is_announced_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MYPY_CONFIG_FILE_DIR", str(ROOT))  # as mypy itself does, and leaves it there
    errors = found()
    accepts, refuses = [], []
    for program, announced in expected().items():
        reported = errors.get(program, {})
        accepts += [
            f"{program}:{n} {c - reported.get(n, set())}" for n, c in announced.items() if c - reported.get(n, set())
        ]
        refuses += [
            f"{program}:{n} {c - announced.get(n, set())}" for n, c in reported.items() if c - announced.get(n, set())
        ]
    assert not accepts, "the checker accepts what it should refuse"
    assert not refuses, "the checker refuses what it should accept"


def test_programs_that_must_not_check_are_many() -> None:
    assert sum(len(lines) for lines in expected().values()) >= 50
