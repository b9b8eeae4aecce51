"""A package: manifests that Kubernetes takes, files that hold no secret, and texts that stay data wherever they are written."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import stat
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml as reading
from dockerfile_parse import DockerfileParser
from hypothesis import given
from hypothesis import strategies as st

from flyball._kernel.errors import DeclarationError, StateError
from flyball._kernel.place import here
from flyball.cycle.packaging import code, image, kubernetes, pins, start, yaml
from flyball.cycle.packaging.kubernetes import Journal, Workload
from flyball.runtime import serving

LATEST = "1.37"
DIGEST = "@sha256:" + "a" * 64
HOSTILE = st.text() | st.sampled_from(
    ["a\nRUN id", '"; id; "', "$(id)", "${HOME}", "{{ x }}", "a' b", "---\nkind: Pod", "!!python/object", "yes", "a\\"]
)


def work(*, plain: bool, journal: Journal = "claim", **other: Any) -> Workload:
    said = {"name": "flights", "namespace": "default", "image": "flights:1", "notes": {}} | other
    return Workload(**said, plain=plain, journal=journal)


@pytest.fixture(scope="module", params=[(p, j) for p in (True, False) for j in ("claim", "pod")], ids=str)
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    plain, journal = request.param
    text = yaml.documents(kubernetes.manifests(work(plain=plain, journal=journal, notes={"flyball.dev/app": "a: b"})))
    return {each["kind"]: each for each in reading.safe_load_all(text)}


def workload(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return objects.get("StatefulSet") or objects["Deployment"]


def test_manifests_are_what_the_published_schemas_say(objects: dict[str, dict[str, Any]]) -> None:
    assert len(objects) == 6
    for each in objects.values():
        assert kubernetes_validate.validate(each, LATEST, strict=True) is not None
    broken = workload(objects)["spec"]["template"]["spec"] | {"runAsNonRoots": True}
    wrong = workload(objects) | {"spec": workload(objects)["spec"] | {"template": {"spec": broken}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, LATEST, strict=True)


def test_manifests_fit_together(objects: dict[str, dict[str, Any]]) -> None:
    runs = workload(objects)
    pod = runs["spec"]["template"]
    labels, (container,) = pod["metadata"]["labels"], pod["spec"]["containers"]
    for selector in (
        runs["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (runs["kind"], runs["metadata"]["name"])
    assert "replicas" not in runs["spec"], "the scaler's, which each apply would undo"
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    claims = [each["metadata"]["name"] for each in runs["spec"].get("volumeClaimTemplates", ())]
    volumes = [each["name"] for each in pod["spec"]["volumes"]] + claims
    assert sorted(volumes) == sorted(each["name"] for each in container["volumeMounts"])
    assert (runs["kind"] == "StatefulSet") == (claims == ["data"])
    assert serving.DRAINS_WITHIN == kubernetes.DRAINS
    assert pod["spec"]["terminationGracePeriodSeconds"] > kubernetes.LEAVES + kubernetes.DRAINS
    assert objects["NetworkPolicy"]["spec"]["egress"] == []


def test_pods_may_do_nothing_that_they_need_not(objects: dict[str, dict[str, Any]]) -> None:
    pod = workload(objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] > 0 and pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "env" not in container, "a secret in the environment is seen by whoever may look at a pod"
    for volume in pod["volumes"]:
        assert volume.get("secret", {"defaultMode": 0o440})["defaultMode"] == 0o440
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(HOSTILE, JSON, min_size=1, max_size=3), min_size=1, max_size=2))
def test_whatever_is_said_stays_what_it_is_in_yaml(values: list[dict[str, Any]]) -> None:
    values = json.loads(json.dumps(values).replace("\\ud", "\\u0"))  # no halves of characters: UTF-8 has none
    assert list(reading.safe_load_all(yaml.documents(values))) == values


def instructions(text: str) -> list[tuple[str, str]]:
    parsed = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    return [(each["instruction"], each["value"]) for each in parsed if each["instruction"] != "COMMENT"]


PLAIN = instructions(image.dockerfile("base:1", "build:1", hashed=False, wheel="w.whl"))


@given(base=HOSTILE | st.from_regex(r"[a-z0-9./:@_\-\n$ ]{1,30}", fullmatch=True))
def test_an_image_s_name_is_refused_or_only_a_name(base: str) -> None:
    with contextlib.suppress(DeclarationError):
        text = image.dockerfile(base, "build:1", hashed=False, wheel="w.whl")
        assert instructions(text) == [(i, base if v == "base:1" else v) for i, v in PLAIN]


@pytest.mark.parametrize(
    "text", ["python", "python:3.11.7-slim", f"r.example.org:5000/a/b__c-d:3{DIGEST}", f"a{DIGEST}"]
)
def test_images_that_registries_take_are_taken(text: str) -> None:
    assert image.reference(text) == text


@pytest.mark.parametrize(
    "text", ["", "A:1", "a b", "a:1\n", "a@sha256:12", "-a", "a AS x", "a#", "$BASE", "/a", "a//b"]
)
def test_others_are_not(text: str) -> None:
    with pytest.raises(DeclarationError, match="image-reference-unusable"):
        image.reference(text)


def test_the_dockerfile_runs_nobody_as_root_and_no_shell_over_names() -> None:
    found = instructions(image.dockerfile(f"base:1{DIGEST}", "build:1", hashed=True, wheel="w.whl"))
    assert [value for name, value in found if name == "USER"] == ["10001:10001"]
    assert found[-1] == ("ENTRYPOINT", '["/opt/flyball/bin/python", "/srv/flyball/start.py"]')
    assert any(name == "HEALTHCHECK" and '"health"]' in value for name, value in found)
    pip = next(json.loads(value) for name, value in found if name == "RUN" and "install" in value)
    assert {"--require-hashes", "--no-index", "--no-deps"} <= set(pip)
    shell = [value for name, value in found if name == "RUN" and not value.startswith("[")]
    assert shell == ["mkdir /opt/flyball/openmp && cp -L /usr/lib/*/libgomp.so.1 /opt/flyball/openmp/"]


class Declared:
    """What `collect` wants of an app: that a module holds it."""

    place = here()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """A package in a folder, imported."""
    root = tmp_path / "top" / "shelf"
    (root / "tests").mkdir(parents=True)
    files = {
        "app.py": "import msgspec\nfrom . import prepare\nfrom shelf.deep import rule\nimport beside\n",
        "prepare.py": "def f():\n    import numpy.linalg\n",
        "deep/__init__.py": "",
        "deep/rule.py": "",
        "unasked.py": "import pytest\n",
        "test_app.py": "",
        "tests/x.py": "",
        ".hidden.py": "",
        "__init__.py": "",
        "data.csv": "1",
        "words.json": "{}",
        "token": "t",
        "keys.json": "{}",
        "signing.pem": "",
        ".env": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root.parent / "beside.py").write_text("import lightgbm\n")
    module, declared = types.ModuleType("shelf.app"), Declared()
    module.__file__ = str(root / "app.py")
    module.app = declared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shelf.app", module)
    return declared, root


def test_an_app_is_its_python_files_and_what_it_imports_beside_them(app: tuple[Any, Path]) -> None:
    found = code.collect(app[0], app[1], ["words.json"])
    assert found.entry == "shelf/app.py"
    names = ["__init__", "app", "deep/__init__", "deep/rule", "prepare", "unasked"]
    assert sorted(found.files) == sorted(["beside.py", "shelf/words.json", *(f"shelf/{name}.py" for name in names)])
    assert set(found.needs) == {"msgspec", "numpy", "lightgbm"}, "and pytest is not, which only an unasked file imports"


@pytest.mark.parametrize("name", ["token", "keys.json", "signing.pem", ".env", "[st]*[nm]", "*"])
def test_keys_and_tokens_are_never_copied(app: tuple[Any, Path], name: str) -> None:
    with pytest.raises(DeclarationError, match="package-holds-a-secret"):
        code.collect(app[0], app[1], [name])


@pytest.mark.parametrize("text", ["flyball_" + "a" * 43, "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n"])
def test_nor_under_another_name(app: tuple[Any, Path], text: str) -> None:
    (app[1] / "settings.py").write_text(f"TOKEN = '''{text}'''\n")
    with pytest.raises(DeclarationError, match="package-holds-a-secret"):
        code.collect(app[0], app[1], [])


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "\0", "none.json", "deep/../../x", "*/nothing"])
def test_what_is_included_lies_in_the_folder(app: tuple[Any, Path], name: str) -> None:
    (app[1].parent / "x").write_text("x")
    with pytest.raises(DeclarationError, match="package-includes-nothing"):
        code.collect(app[0], app[1], [name])


@pytest.mark.parametrize(
    "target", ["../../outside.py", "/etc/passwd", "nowhere.py", ".hidden.py", "../../away", "loop.py"]
)
def test_links_that_leave_the_folder_are_refused(app: tuple[Any, Path], target: str) -> None:
    declared, root = app
    (root.parent.parent / "outside.py").write_text("")
    (root.parent.parent / "away").mkdir()
    (root / "loop.py").symlink_to(target)
    with pytest.raises(DeclarationError, match="package-link-leaves"):
        code.collect(declared, root, [])


def test_a_link_within_it_is_the_file_that_it_leads_to(app: tuple[Any, Path]) -> None:
    (app[1] / "same.py").symlink_to("unasked.py")
    assert code.collect(app[0], app[1], []).files["shelf/same.py"] == b"import pytest\n"
    os.mkfifo(app[1] / "pipe.py")
    with pytest.raises(DeclarationError, match="package-file-unusable"):
        code.collect(app[0], app[1], [])


def test_flyball_is_a_wheel_of_itself() -> None:
    name, data = pins.wheel()
    assert (name, data) == pins.wheel(), "the same bytes"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        record = next(each for each in names if each.endswith("RECORD"))
        listed = [line.rsplit(",", 2) for line in archive.read(record).decode().splitlines()]
        assert {path for path, _, _ in listed} == names
        for path, digest, size in listed[:-1]:
            content = archive.read(path)
            assert int(size) == len(content)
            told = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert digest == f"sha256={told}"
        assert {"flyball/py.typed", "flyball/cli/package.py", "flyball/cycle/packaging/start.py"} <= names
        assert b"flyball.cli:main" in archive.read(record.replace("RECORD", "entry_points.txt"))


def test_every_library_is_pinned_and_hashed_where_there_are_wheels(tmp_path: Path) -> None:
    found = pins.pinned(("numpy",))
    assert "numpy" in found and "pytest" not in found and "flyball" not in found
    text = pins.requirements(found, ("w.whl", b""), {})
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in text.splitlines()[1:])
    (tmp_path / "ab_c-1.0-py3-none-any.whl").write_bytes(b"x")
    (tmp_path / "ab_c-2.0-py3-none-any.whl").write_bytes(b"y")
    wheels = pins.downloaded(tmp_path, {"ab-c": "1.0"})
    text = pins.requirements({"ab-c": "1.0"}, ("w.whl", b""), wheels)
    assert list(wheels) == ["ab_c-1.0-py3-none-any.whl"]
    assert text.splitlines()[1] == f"ab-c==1.0 --hash=sha256:{hashlib.sha256(b'x').hexdigest()}"
    with pytest.raises(StateError, match="package-wheel-missing"):
        pins.requirements({"ab-c": "1.0", "d": "2"}, ("w.whl", b""), wheels)
    with pytest.raises(StateError, match="package-wheel-missing"):
        pins.downloaded(tmp_path / "none", {"ab-c": "1.0"})
    with pytest.raises(StateError, match="package-pin-unusable"):
        pins.requirements({"ab-c": "1.0\n--no-index"}, ("w.whl", b""), {})


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Secrets as Kubernetes mounts them, a volume and a folder in memory that belong to a group, and an image."""
    monkeypatch.setattr(start, "IMAGE", tmp_path / "image")
    (tmp_path / "image/home/artifacts").mkdir(parents=True)
    (tmp_path / "image/home/route.json").write_text("route")
    (tmp_path / "secrets/keys").mkdir(parents=True)
    for name in ("signing.pem", "keys.json"):
        (tmp_path / "secrets/keys" / name).write_text(name)
        (tmp_path / "secrets/keys" / name).chmod(0o440)
    for name in ("data", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o2775)
    before = os.umask(0o022)
    yield {f"FLYBALL_{n.upper()}": str(tmp_path / n) for n in ("secrets", "data", "run")}
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_home_is_laid_out_for_its_owner_alone_and_anew_at_each_start(mounted: dict[str, str]) -> None:
    home, environment = start.prepare(mounted)
    key = Path(environment["FLYBALL_KEY"])
    assert key.read_text() == "signing.pem" and not key.is_relative_to(home), "the key lies outside the store"
    assert [mode(p) for p in (home, key.parent)] == [0o700] * 2
    assert [mode(p) for p in (key, home / "keys.json", home / "route.json")] == [0o600] * 3
    (home / "journal").mkdir()
    (home / "online.sqlite").write_text("of another image")
    home.chmod(0o2770)  # as a volume that is mounted again
    start.IMAGE.joinpath("home/route.json").write_text("another")
    assert start.prepare(mounted)[0] == home and mode(home) == 0o700
    assert (home / "route.json").read_text() == "another" and (home / "journal").is_dir()
    assert not (home / "online.sqlite").exists()
    assert not [p for p in home.iterdir() if p.name.startswith(".")]


def test_it_does_not_start_without_keys_or_over_a_history(
    mounted: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Path(mounted["FLYBALL_SECRETS"]) / "keys" / "keys.json"
    said = {"plain": True, "names": [], "entry": "app.py"}
    (start.IMAGE / "flyball-package.json").write_text(json.dumps(said))
    (start.IMAGE / "app").mkdir()
    for name, value in mounted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(start.IMAGE)
    key.rename(key.with_name("away"))
    assert start.main([]) == 2 and "mount the Secret" in capsys.readouterr().err
    key.with_name("away").rename(key)
    home = Path(mounted["FLYBALL_DATA"]) / "home"
    (home / "facts.sqlite").write_text("")
    assert start.main([]) == 2 and "a home with a history" in capsys.readouterr().err
    (home / "facts.sqlite").unlink()
    (home / "artifacts").unlink(missing_ok=True)
    (home / "artifacts").mkdir()
    assert start.main([]) == 2 and "another home" in capsys.readouterr().err
