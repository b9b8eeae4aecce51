"""Loading: the app that a folder, a file or a module declares. Importing the file is all that runs of it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flyball._kernel.errors import DeclarationError, FlyballError
from flyball._kernel.place import Place
from flyball.app import App
from flyball.data.contract import Contract


@dataclass(frozen=True, slots=True)
class Loaded:
    """An app, and the folder of its file."""

    app: App
    root: Path


def load(path: str) -> Loaded:
    """The app that a folder (with app.py), a file or a module declares.

    Raises:
        DeclarationError: `no-such-app`, `app-file-broken`, `no-app-in-file`, or whatever the file itself declares wrongly.
    """
    file, top = Path(path), Path()
    file = file / "app.py" if file.is_dir() else file
    if file.suffix == ".py":
        if not file.is_file():
            raise _no_such_app(path, f"There is no file {file}.")
        name, top = _module_name(file.resolve())
        if str(top) not in sys.path:
            sys.path.insert(0, str(top))
    else:
        name = path
        sys.path.insert(0, os.getcwd())
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise _no_such_app(path, "There is no such folder, file or module.")
    present = sys.modules.get(name)
    if present is not None and file.suffix == ".py" and Path(present.__file__ or "").resolve() != file.resolve():
        # Another file of the same name, such as the app.py of another folder, was loaded before it.
        del sys.modules[name]
        sys.path.remove(str(top))
        sys.path.insert(0, str(top))
    return _found(_import(name, file), path)


def _module_name(file: Path) -> tuple[str, Path]:
    """The dotted name of a file, and the folder that must be on the path: the first above that is no package."""
    parts, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def _import(name: str, file: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except FlyballError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        mine = [f for f in frames if f.filename == str(file.resolve())] or frames[-1:]
        where = Place(mine[-1].filename, mine[-1].lineno or 0) if mine else None
        if isinstance(error, SyntaxError):
            where = Place(error.filename or str(file), error.lineno or 0)
        why = "Python itself refuses it."
        if isinstance(error, AttributeError) and isinstance(error.obj, type) and issubclass(error.obj, Contract):
            columns = list(error.obj.columns())
            near = difflib.get_close_matches(error.name or "", columns, 1)
            why = f"{error.obj.__name__} has {', '.join(columns)}." + (f" Did you mean {near[0]!r}?" if near else "")
        raise DeclarationError(
            "app-file-broken",
            f"The app file cannot be imported: {type(error).__name__}: {error}",
            where=where,
            why=why,
            next="Mend that line, then run the same command again.",
        ) from error


def _found(module: ModuleType, path: str) -> Loaded:
    apps = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    if len(apps) != 1:
        raise DeclarationError(
            "no-app-in-file",
            f"{path} declares {len(apps) or 'no'} apps.",
            where=Place(module.__file__ or path, 1),
            why="The file of an application has one value of type fb.App.",
            next="Write app = fb.App(...), once.",
        )
    (app,) = apps.values()
    return Loaded(app, Path(module.__file__ or ".").resolve().parent)


def _no_such_app(path: str, what: str) -> DeclarationError:
    return DeclarationError(
        "no-such-app",
        what,
        why=f"{path!r} should be a folder with app.py, a Python file, or a module.",
        next="flyball new NAME makes one that runs.",
    )
