"""Packaging: one version, or all that answer now, as the context of an image and manifests for Kubernetes.

A container follows no release: nobody watches a candidate there, so it has champions and whoever answered before them. What it
holds of the artifacts is what answering read when it was tried here, to the byte; nothing of a training gets in otherwise. Keys
are never copied. The route is signed, so that a server answers by it without a history, as `cycle.catalog` has it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from flyball._kernel.errors import AdapterError, DeclarationError, FlyballError, StateError
from flyball._kernel.facts import Fact, Said
from flyball._kernel.ports import Blobs
from flyball.cycle import answering, artifacts, bundle, chosen
from flyball.cycle.packaging import code, image, kubernetes, pins, yaml
from flyball.cycle.packaging.kubernetes import Journal, Workload
from flyball.cycle.session import Session
from flyball.learn.encoding import encode
from flyball.learn.features.declare import Latest, Window
from flyball.learn.model import Model
from flyball.release import rollout, version
from flyball.release.route import Answering, Route

FORMAT: Final = 1
BASE: Final = "python:{python}-slim-bookworm"
BUILD: Final = "python:{python}-bookworm"
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\Z")
_SPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")

Lay = Callable[[Path, Route, Collection[bytes], Path | None], None]
"""(folder, route, artifacts, home whose online features are copied) lays out the home of an image."""


@dataclass(frozen=True, slots=True)
class Images:
    """What an image is called, what it runs on and what it is built on; "" for the usual: see `BASE`, `BUILD`."""

    name: str = ""
    base: str = ""
    build: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a version shall be packaged.

    Attributes:
        version: which; None for all that answer now.
        names: of the Host header that the server answers to, beside those of the cluster.
        plain: whether somebody else encrypts.
        wheels: a folder of downloaded wheels; see `pins`.
        include: files of the app's folder beside its Python files.
        features: whether online features may be copied: values of rows, as of now.
        reveal: whether values of personal columns may be, where the encoder holds them.
    """

    version: str | None = None
    images: Images = Images()
    namespace: str = "default"
    names: tuple[str, ...] = ()
    plain: bool = False
    journal: Journal = "claim"
    wheels: Path | None = None
    include: tuple[str, ...] = ()
    features: bool = False
    reveal: bool = False


class Packaged(Said, frozen=True, kw_only=True, tag="release.packaged"):
    """Versions were written as the context of an image.

    Attributes:
        versions: model -> version.
        context: the SHA-256 over the names and contents of all its files.
        image: what it is called.
        features: whether online features left with it.
    """

    versions: dict[str, str]
    context: str
    image: str
    features: bool


def package(session: Session, root: Path, wanted: Wanted, out: Path, lay: Lay) -> Packaged:
    """Write the context of an image, and manifests, into the folder `out`, which must not exist or be empty.

    Args:
        root: the folder of the app's file.

    Raises:
        StateError: `nothing-released`, `no-such-version`, `features-changed`, `task-changed`; `package-not-released`,
            `package-needs-features`, `bundle-names-persons`, `package-wheel-missing`, `package-pin-unusable`.
        DeclarationError: `image-reference-unusable`, `package-name-unusable`; what `code.collect` raises.
        AdapterError: `package-unwritable`; what `lay` raises.
    """
    work, names = _workload(session, wanted)
    route = _route(session, wanted.version)
    blobs = _Read(session.blobs)
    route = _tried(replace(session, blobs=blobs), route, reveal=wanted.reveal)
    online = _online(session, route, allowed=wanted.features)
    app = code.collect(session.app, root, wanted.include)
    versions = {model: each.champion for model, each in route.models.items()}
    tag = wanted.images.name or f"{work.name}:{'-'.join(sorted(versions.values()))[:100]}"
    work = replace(work, image=image.reference(tag), notes=_notes(session.app.name, versions))
    said = {
        "format": FORMAT,
        "app": session.app.name,
        "entry": app.entry,
        "names": names,
        "plain": wanted.plain,
        "versions": versions,
    }
    files = {f"app/{name}": data for name, data in app.files.items()}
    files |= _installing(app.needs, wanted)
    files |= {
        ".dockerignore": image.DOCKERIGNORE.encode(),
        "README.md": image.readme(work.name, tag, versions, plain=wanted.plain, names=names).encode(),
        "kubernetes.yaml": yaml.documents(kubernetes.manifests(work)).encode(),
        "start.py": resources.files("flyball.cycle.packaging").joinpath("start.py").read_bytes(),
        code.MARKER: msgspec.json.format(msgspec.json.encode(said)) + b"\n",
    }
    context = _write(out, files, lambda folder: lay(folder, route, blobs.read.values(), online))
    made = Packaged(versions=versions, context=context, image=tag, features=online is not None)
    session.facts.append([Fact(session.app.name, "", made)])
    return made


class _Read:
    """Artifacts, and which of them were read; see `ports.Blobs`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.put, self.has, self.names, self.drop = blobs.put, blobs.has, blobs.names, blobs.drop
        self.read: dict[str, bytes] = {}

    def get(self, digest: str) -> bytes:
        self.read[digest] = data = self._blobs.get(digest)
        return data


def _route(session: Session, name: str | None) -> Route:
    """Who answers now, each with who did before; or one version, for its model alone."""
    log, app = session.facts, session.app.name

    def manifest(each: str) -> str:
        return version.find(log, app, each).manifest if each else ""

    if name is not None:
        row = version.find(log, app, name)
        model = artifacts.load_manifest(session, name).model
        now = rollout.now(log, app, model)
        fell = now.held.get(name, "")
        if (row.decision != "release" and name not in (now.champion, *now.past)) or fell:
            raise StateError(
                "package-not-released",
                f"{name} is not packaged: {fell[:200] or 'its gates have not released it'}.",
                why="A container answers with it until somebody replaces the image; nothing takes it back by itself.",
                next=f"flyball promote {name} says who answers for it; then package again.",
            )
        return Route(app=app, models={model: Answering(epoch=now.epoch, champion=name, manifest=row.manifest)})
    found = {}
    for model in session.models:
        now = rollout.now(log, app, model)
        if now.champion:
            found[model] = Answering(
                epoch=now.epoch,
                champion=now.champion,
                manifest=manifest(now.champion),
                previous=now.previous,
                previous_manifest=manifest(now.previous),
            )
    if not found:
        chosen.chosen(session, session.app.models[0], None)  # says that nothing is released
    return Route(app=app, models=found)


def _tried(session: Session, route: Route, *, reveal: bool) -> Route:
    """The route as this code answers by it: each version made ready as a server does, so that all it needs was read."""
    found = {}
    for name, each in route.models.items():
        model = session.app.model(name)
        champion = answering.plan_of(session, model, each.champion, each.manifest)
        _baseline(session, champion, each.manifest)
        if each.previous:
            try:
                answering.plan_of(session, model, each.previous, each.previous_manifest)
            except FlyballError:
                # A server goes without it as well; so does the image.
                each = msgspec.structs.replace(each, previous="", previous_manifest="")
        for version_ in filter(None, (each.champion, each.previous)):
            if not reveal:
                _nobody(session, model, version_)
        found[name] = each
    return Route(app=route.app, models=found)


def _baseline(session: Session, champion: Any, manifest: str) -> None:
    try:
        answering.baseline_of(session, champion, manifest)
    except (FlyballError, KeyError):
        return  # an adopted model has none, and a server does without


def _nobody(session: Session, model: Model, name: str) -> None:
    manifest = artifacts.load_manifest(session, name)
    if encode.ARTIFACT in manifest.artifacts:
        bundle.refuse_persons(model, artifacts.load_encoder(session, manifest))


def _online(session: Session, route: Route, *, allowed: bool) -> Path | None:
    """The home whose online features the image needs."""
    looked = [
        feature.name
        for name in route.models
        for feature in session.app.model(name).features.features
        if isinstance(feature, Latest | Window)
    ]
    if not looked:
        return None
    if not allowed:
        raise StateError(
            "package-needs-features",
            f"Features are looked up: {', '.join(looked[:5])}.",
            where=session.app.place,
            why="They are values of rows, and an image has them as of now: they grow old there, and go missing in time.",
            next="Add --features, and package again as often as they change; or serve with a loop, by flyball up.",
        )
    return session.home


def _workload(session: Session, wanted: Wanted) -> tuple[Workload, list[str]]:
    name = re.sub(r"_+", "-", session.app.name)[:50].strip("-")
    for text, pattern in ((wanted.namespace, _SPACE), *((each, _HOST) for each in wanted.names)):
        if pattern.match(text) is None:
            raise DeclarationError(
                "package-name-unusable",
                f"{text[:80]!r} names no namespace and no machine.",
                why="It is a DNS name in lower case: no port, no scheme, no wildcard.",
                next="--namespace predictions, --host-name predictions.example.org",
            )
    names = [*kubernetes.names(name, wanted.namespace), *wanted.names]
    work = Workload(name, wanted.namespace, "", {}, plain=wanted.plain, journal=wanted.journal)
    return work, list(dict.fromkeys(names))


def _notes(app: str, versions: Mapping[str, str]) -> dict[str, str]:
    return {"flyball.dev/app": app, "flyball.dev/versions": ", ".join(f"{m}: {v}" for m, v in versions.items())}


def _installing(needs: tuple[str, ...], wanted: Wanted) -> dict[str, bytes]:
    """Dockerfile, requirements and wheels."""
    found = pins.pinned(needs)
    wheels = pins.downloaded(wanted.wheels, found) if wanted.wheels is not None else {}
    own = pins.wheel()
    python = platform.python_version()
    base, build = wanted.images.base or BASE.format(python=python), wanted.images.build or BUILD.format(python=python)
    files = {f"wheels/{name}": data for name, data in (*wheels.items(), own)}
    return files | {
        "Dockerfile": image.dockerfile(base, build, hashed=bool(wheels), wheel=own[0]).encode(),
        "requirements.txt": pins.requirements(found, own, wheels).encode(),
    }


def _write(out: Path, files: Mapping[str, bytes], lay: Callable[[Path], None]) -> str:
    """Write all of it aside, then put it there as a whole; returns its digest."""
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise FileExistsError(17, "it is there, and not an empty folder", str(out))
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:40]}-"))
        try:
            for name, data in files.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).write_bytes(data)
            (aside / "home").mkdir()
            lay(aside / "home")
            digest = _readable(aside)
            os.rename(aside, out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise AdapterError(
            "package-unwritable",
            f"The package cannot be written to {out}.",
            why=str(error),
            next="Name a folder that does not exist yet, where you may write.",
        ) from error
    return digest


def _readable(folder: Path) -> str:
    """Let everybody read it, as whoever runs in the container must; returns the digest of names and contents."""
    total = hashlib.sha256()
    folder.chmod(0o755)
    for path in sorted(folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return total.hexdigest()
