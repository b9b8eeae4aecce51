"""The documentation runs: every python snippet of a page, in order, in one namespace, in a folder of its own.

A snippet whose first line is `# not run` is skipped, and there may be few of them. One whose first line is `# file: NAME`
is also written to NAME in the folder, so that a page can build a project. The commands of a page, the lines of its console
blocks that begin with `$`, run in order and must end with 0; what does not end by itself stands in a shell block instead.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    p for p in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))] if p.exists()
]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
MOST_NOT_RUN = 5

# One process for all commands of a page, as importing the heavy libraries takes longer than most of them.
DRIVER = """
import runpy, shlex, sys
from flyball.cli import call
for line in sys.stdin.read().splitlines():
    program, *arguments = shlex.split(line)
    if program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
    elif program == "pytest":
        import pytest
        if pytest.main(["-p", "no:cacheprovider", *arguments]) != 0:
            sys.exit(f"failed: {line}")
    elif program != "flyball" or call(arguments) != 0:
        sys.exit(f"failed: {line}")
"""


@dataclass(frozen=True)
class Snippet:
    """One fenced block."""

    language: str
    line: int
    code: str

    @property
    def runs(self) -> bool:
        return not self.code.startswith("# not run")


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(m["language"], text[: m.start()].count("\n") + 2, re.sub(rf"^{m['indent']}", "", m["code"], flags=re.M))
        for m in FENCE.finditer(text)
    ]


def pages_with(language: str, needle: str = "") -> list[str]:
    return [
        str(p.relative_to(ROOT))
        for p in PAGES
        if any(s.language == language and s.runs and needle in s.code for s in snippets(p))
    ]


def written(page: str, folder: Path) -> list[Path]:
    """The files of a page, written."""
    found = []
    for snippet in snippets(ROOT / page):
        name = re.match(r"# file: (\S+)\n", snippet.code)
        if name is not None:
            found.append(folder / name[1])
            found[-1].write_text(snippet.code)
    return found


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FLYBALL_KEY", str(tmp_path / "key" / "signing.pem"))
    for path in written(page, tmp_path):
        monkeypatch.setitem(sys.modules, path.stem, None)  # forgotten again, whatever the page imports under its name
        del sys.modules[path.stem]
    # A file with each snippet on its own lines: an error names the page's line, and functions have a source to follow.
    lines = [""] * (len((ROOT / page).read_text().splitlines()) + 1)
    for snippet in (s for s in snippets(ROOT / page) if s.language == "python" and s.runs):
        code = snippet.code.splitlines()
        lines[snippet.line - 1 : snippet.line - 1 + len(code)] = code
    name = "page_" + re.sub(r"\W", "_", page)
    file = tmp_path / f"{name}.py"
    file.write_text("\n".join(lines) + "\n")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)


@pytest.mark.parametrize("page", pages_with("console", "$ "))
def test_the_commands_of_a_page_run(page: str, tmp_path: Path) -> None:
    written(page, tmp_path)
    blocks = [s for s in snippets(ROOT / page) if s.language == "console" and s.runs]
    commands = [c.removeprefix("$ ") for block in blocks for c in block.code.splitlines() if c.startswith("$ ")]
    environment = os.environ | {"FLYBALL_KEY": str(tmp_path / "key" / "signing.pem"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input="\n".join(commands),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"


def test_few_snippets_are_not_run() -> None:
    skipped = [f"{p.name}:{s.line}" for p in PAGES for s in snippets(p) if s.language == "python" and not s.runs]
    assert len(skipped) <= MOST_NOT_RUN, skipped


def test_every_block_says_its_language() -> None:
    silent = [f"{p.relative_to(ROOT)}:{s.line}" for p in PAGES for s in snippets(p) if not s.language]
    assert not silent
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(snippets(page)), f"{page} has an open block"
