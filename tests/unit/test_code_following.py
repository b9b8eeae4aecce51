"""What a function's fingerprint sees: every change that acts, however far below, and no change that does not.

Small projects are written to disk, imported, fingerprinted, edited, and imported again, as a user's project is. They stand in
code_samples/*.txt: `== title`, the text of app.py, `-- name` and the text of another file. `⟨before|after⟩` is the edit; in
refused.txt, `# <- words` marks the line that the error names and words of its message.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flyball._kernel import durations, fingerprint
from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import origin

SAMPLES = Path(__file__).parent / "code_samples"


def samples(name: str) -> dict[str, str]:
    cases = (SAMPLES / f"{name}.txt").read_text(encoding="utf-8").split("== ")[1:]
    return {title: text for title, _, text in (case.partition("\n") for case in cases)}


def edition(text: str, which: int) -> str:
    return re.sub(r"⟨([^|]*)\|([^⟩]*)⟩", lambda edit: edit[which], text)


SEEN, UNSEEN, REFUSED, FOLLOWED = (samples(n) for n in ("seen", "unseen", "refused", "followed"))


class Project:
    """A package `sample` on disk, imported anew after every edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sample"

    def load(self, text: str) -> ModuleType:
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.glob("*.py"):
            old.unlink()
        for part in ("-- __init__.py\n", *re.split(r"^(?=-- )", f"-- app.py\n{text}", flags=re.MULTILINE)):
            name, _, body = part.removeprefix("-- ").partition("\n")
            if name:
                (self.folder / name).write_text(body, encoding="utf-8")
        return self.reload()

    def reload(self) -> ModuleType:
        self.forget()
        importlib.invalidate_caches()
        return importlib.import_module("sample.app")

    def forget(self) -> None:
        for name in [n for n in sys.modules if n == "sample" or n.startswith("sample.")]:
            del sys.modules[name]

    def of(self, text: str) -> str:
        return fingerprint.of(self.load(text).f)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    # Byte code is cached by whole seconds and size: an edit within a second would not be imported.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = Project(tmp_path)
    yield project
    project.forget()


@pytest.mark.parametrize("case", UNSEEN)
def test_what_does_not_act_changes_nothing(project: Project, case: str) -> None:
    assert edition(UNSEEN[case], 1) != edition(UNSEEN[case], 2)
    assert project.of(edition(UNSEEN[case], 1)) == project.of(edition(UNSEEN[case], 2))


@pytest.mark.parametrize("case", SEEN)
def test_what_acts_is_seen(project: Project, case: str) -> None:
    before = project.of(edition(SEEN[case], 1))
    assert project.of(edition(SEEN[case], 2)) != before
    assert project.of("# moved\n\n" + edition(SEEN[case], 1)) == before


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_named(project: Project, case: str) -> None:
    text = REFUSED[case]
    ((line, words),) = [(i, w) for i, each in enumerate(text.splitlines(), 1) for w in re.findall("# <- (.*)", each)]
    function = project.load(text).f
    with pytest.raises(DeclarationError) as caught:
        fingerprint.of(function)
    error = caught.value
    assert error.code == "cannot-follow"
    assert words in error.what
    assert error.where is not None
    assert error.where.line == line
    assert error.why
    assert error.next


@pytest.mark.parametrize("case", FOLLOWED)
def test_what_occurs_in_real_code_is_followed(project: Project, case: str) -> None:
    assert project.of(FOLLOWED[case]) == project.of("'''Moved.'''\n" + FOLLOWED[case])


def test_circles_end_and_do_not_depend_on_the_order_of_discovery(project: Project) -> None:
    lines = ["def f(x): return g(x)", "def g(x): return h(x)", "def h(x): return f(x) + g(x)"]
    first = project.load("\n".join(lines))
    found = [fingerprint.of(getattr(first, name)) for name in "fgh"]
    second = project.load("\n".join(reversed(lines)))
    assert found == [fingerprint.of(getattr(second, name)) for name in "fgh"]
    assert fingerprint.of({first.f, first.g, first.h}) == fingerprint.of({second.h, second.g, second.f})
    assert len(set(found)) == 3


def test_a_set_of_functions_has_no_order(project: Project) -> None:
    text = "def g(): return 1\ndef h(): return g\n"
    one = project.of(text + "f = {'a': frozenset({g, h}), 'b': {h: 1, g: 2}}")
    assert project.of(text + "f = {'b': {g: 2, h: 1}, 'a': frozenset({h, g})}") == one
    assert project.of(text + "f = {'b': {g: 1, h: 2}, 'a': frozenset({h, g})}") != one


def test_a_rebound_global_is_followed_as_it_is_bound_now(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from . import prep\ndef f(): return prep.g()\n-- prep.py\ndef g(): return 1\ndef h(): return 2\n"
    module = project.load(text)
    before = fingerprint.of(module.f)
    monkeypatch.setattr(module.prep, "g", module.prep.h)
    assert fingerprint.of(module.f) != before


def test_a_replaced_method_is_followed_as_it_is_now(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    module = project.load("class A:\n  def m(self): return 1\ndef other(self): return 2\ndef f(): return A().m()")
    found = [fingerprint.of(module.f)]
    for name in ("m", "n"):
        with monkeypatch.context() as patch:
            patch.setattr(module.A, name, module.other, raising=False)
            found.append(fingerprint.of(module.f))
    assert len(set(found)) == 3


def test_lambdas_on_one_line_are_told_apart(project: Project) -> None:
    text = (
        "A = 1\nf = [lambda x: x + 1, lambda x: x + A, lambda x: (lambda x: x)(x), lambda x: lambda x: x, lambda x: x]"
    )
    module = project.load(text)
    found = [fingerprint.of(each) for each in module.f]
    assert len(set(found)) == 5
    assert fingerprint.of(module.f[3](1)) == found[4]
    moved = project.load(text.replace("[", "[\n\n").replace("lambda x: x + 1", "lambda x: (x +\n1)"))
    assert found == [fingerprint.of(each) for each in moved.f]


def test_lambdas_over_several_lines_and_with_odd_letters(project: Project) -> None:
    module = project.load("f = ['é', lambda x: 'ü' + (\n  x\n), lambda x: 'ü' + x + x]")
    assert fingerprint.of(module.f[1]) != fingerprint.of(module.f[2])


def test_equal_closures_are_equal_whoever_made_them(project: Project) -> None:
    module = project.load("def make(n): return lambda: n\na, b, c = make(1), make(1), make(2)")
    assert fingerprint.of(module.a) == fingerprint.of(module.b) != fingerprint.of(module.c)
    assert fingerprint.of([module.a, module.a]) == fingerprint.of([module.a, module.b])


def test_the_place_of_the_checkout_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = """
from pathlib import Path
HERE = Path(__file__).parent
DATA = str(HERE.parent / 'a.csv')
def f(): return DATA, HERE, __file__
"""
    found = []
    for name, says in (("one", text), ("two", text), ("three", text.replace("a.csv", "b.csv"))):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            found.append(Project(tmp_path / name).of(says))
            Project(tmp_path / name).forget()
    assert found[0] == found[1] != found[2]


def test_code_that_was_edited_after_import_is_never_taken_for_what_runs(project: Project) -> None:
    old = project.load("def f(x): return x + 1\nclass A:\n  def m(self): return 1")
    (project.folder / "app.py").write_text("def f(x): return x + 2\nclass A:\n  def m(self): return 2")
    for stale in (old.f, old.A):
        with pytest.raises(DeclarationError, match="changed after it was imported"):
            fingerprint.of(stale)


def test_an_edit_within_one_tick_of_the_clock_is_seen(project: Project) -> None:
    path = project.folder / "app.py"
    before = project.of("def f(x): return x + 1\nclass A: pass")
    status = path.stat()
    path.write_text("def f(x): return x + 2\nclass A: pass")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint.of(project.reload().f) != before


def test_old_code_keeps_its_fingerprint_if_its_text_was_read_before_the_edit(project: Project) -> None:
    old = project.load("def f(x): return x + 1\nclass A:\n  def m(self): return 1")
    before = fingerprint.of(old.f), fingerprint.of(old.A)
    new = project.load("# moved\ndef f(x): return x + 2\nclass A:\n  def m(self): return 2")
    assert fingerprint.of(new.f) != before[0]
    assert fingerprint.of(new.A) != before[1]
    sys.modules["sample.app"] = old
    assert (fingerprint.of(old.f), fingerprint.of(old.A)) == before


def test_a_file_that_no_longer_parses_does_not_hide_what_runs(project: Project) -> None:
    old = project.load("def f(x): return x + 1")
    before = fingerprint.of(old.f)
    (project.folder / "app.py").write_text("def f(x: return")
    assert fingerprint.of(old.f) == before


def test_what_python_warns_about_at_import_is_not_said_again(project: Project) -> None:
    with warnings.catch_warnings(action="ignore"):
        module = project.load("def f(x): return '\\d', x is 1")
    assert fingerprint.of(module.f)


def test_functions_of_a_rewritten_test_file_are_followed() -> None:
    def g(n: int) -> int:
        assert n > 0
        return n

    def f() -> int:
        return g(1)

    def h() -> int:
        return g(1)

    assert fingerprint.of(f) == fingerprint.of(f) != fingerprint.of(h)


def test_an_installed_library_counts_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(text: str, version: str) -> str:
        folder = tmp_path / f"{version}{len(text)}" / "site-packages"
        (folder / "orphan_lib-x.dist-info").mkdir(parents=True)
        (folder / "orphan_lib.py").write_text(text)
        if version:
            metadata = f"Metadata-Version: 2.1\nName: orphan-lib\nVersion: {version}\n"
            (folder / "orphan_lib-x.dist-info" / "METADATA").write_text(metadata)
            (folder / "orphan_lib-x.dist-info" / "top_level.txt").write_text("orphan_lib\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "orphan_lib", raising=False)
        for cached in (origin._providers, origin._version, origin._owner):
            cached.cache_clear()
        return fingerprint.of(importlib.import_module("orphan_lib").g)

    first = install("def g(): return 1", "1.0")
    assert install("def g(): return 22", "1.0") == first
    assert install("def g(): return 1", "1.1") != first
    monkeypatch.undo()
    with pytest.raises(DeclarationError, match="no installed distribution"):
        install("def g(): return 333", "")
    sys.modules.pop("orphan_lib")
    origin._providers.cache_clear()


def test_flyball_itself_counts_by_its_version_wherever_it_lies() -> None:
    assert str(origin.label("flyball._kernel.durations")).startswith("flyball==")
    assert origin.spelling(durations.days) is not None
    assert origin.label("json") == origin.label("sys") == origin.PYTHON
    assert str(origin.label("polars")).startswith("polars==")
    assert origin.label(__name__) is None


def test_a_function_typed_at_a_prompt_has_no_source() -> None:
    program = "from flyball._kernel import fingerprint\ndef f(): return 1\nfingerprint.of(f)"
    assert "cannot-follow" in _python(program).stderr


def test_names_seeds_and_addresses_of_the_process_do_not_count(project: Project) -> None:
    module = project.load(
        """
import math, re
import numpy as np
import polars as pl
A = {"b", "a", "c"}
P = re.compile("x")
E = pl.col("a").is_in(["x", "y"]).cast(pl.Enum(["p", "q"]))
def h(x): return f(x), sorted(A), P, E, {k: v for k, v in {}.items()}
def f(x): return [h, math.sin, np.log(x), frozenset(A)]
"""
    )
    here = fingerprint.of(module.f, {"x", "y", "z"}, {1: 2, "a": 3})
    program = (
        "from sample import app\nfrom flyball._kernel import fingerprint\n"
        "print(fingerprint.of(app.f, {'z', 'y', 'x'}, {'a': 3, 1: 2}))"
    )
    for seed in ("1", "2"):
        done = _python(program, str(project.folder.parent), PYTHONHASHSEED=seed)
        assert done.stdout.strip() == here, done.stderr


def test_following_twenty_functions_is_fast(project: Project) -> None:
    lines = [f"def g{i}(x):\n    '''Doc.'''\n    return [g{i + 1}(y) for y in x if y > {i}]" for i in range(20)]
    module = project.load("\n".join([*lines, "def g20(x): return x", "def f(x): return g0(x)"]))
    fingerprint.of(module.f)
    spans = []
    for _ in range(5):
        start = time.thread_time()  # its own work: another may have this core for a while
        fingerprint.of(module.f)
        spans.append(time.thread_time() - start)
    assert min(spans) < 0.02


def _python(program: str, *folders: str, **environment: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(fingerprint.__file__).parents[3])
    paths = {"PYTHONPATH": os.pathsep.join([source, *folders]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **paths, **environment}
    )
