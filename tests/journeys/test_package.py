"""`flyball package`: a version leaves for a container, answers there as it would here, and what it answered comes home.

Nothing here builds an image. The context is used as the Dockerfile says: flyball from its wheel, the entry point over what is
mounted as Kubernetes mounts it, and a question over HTTP to a server that has no history.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball import cli
from flyball._kernel.facts import Fact
from flyball.predictor import Predictor
from flyball.release import rollout, version
from tests.oracles import projects

APP, MODEL, FIRST = "packed_shop", "sent_back", "sent_back-1"
ROW = {
    "order_id": "o1",
    "placed": "2026-01-01T00:00:00Z",
    "category": "books",
    "channel": "web",
    "price": 8.0,
    "customer": "c1",
}
TOKEN = "flyball_" + "t" * 43


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with one version that answers, and a key for whoever asks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYBALL_KEY", str(tmp_path_factory.mktemp("key") / "k.pem"))
        made = projects.make(tmp_path_factory.mktemp("project") / APP)
        assert cli.call(["apply", str(made), "--json"]) == 0
        keys = made / ".flyball" / "keys.json"
        said = json.loads(keys.read_text())
        said["keys"].append({**said["keys"][0], "name": "web", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()})
        said["keys"][-1]["scopes"] = ["predict"]
        keys.write_text(json.dumps(said))
        (made / ".env").write_text("SECRET=1")
        (made / "signing.pem").write_text("not for an image")
        yield made


def written(project: Path, out: Path, *more: str) -> int:
    projects.forget(project)
    return cli.call(["package", str(project), "--features", "--plain", "--out", str(out), "--json", *more])


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def context(project: Path) -> Path:
    out = project.parent / "context"
    assert written(project, out, FIRST) == 0
    return out


def test_the_same_version_is_the_same_bytes_and_holds_what_answering_needs(project: Path, context: Path) -> None:
    assert written(project, context.parent / "again") == 0, "who answers now is the same version"
    files = content(context)
    assert files == content(context.parent / "again")
    home = project / ".flyball"
    assert json.loads(files["home/route.json"])["models"][MODEL]["champion"] == FIRST
    artifacts = {Path(name).name for name in files if name.startswith("home/artifacts/")}
    assert 0 < len(artifacts) < sum(1 for path in (home / "artifacts").rglob("*") if path.is_file())
    for name, data in files.items():
        assert "data/" not in name and not name.endswith((".pem", ".csv", ".parquet", "facts.sqlite", "/token", ".env"))
        assert (home / "token").read_bytes().strip() not in data, name
        assert Path(os.environ["FLYBALL_KEY"]).read_bytes().split(b"\n")[1] not in data, name
        assert str(project).encode() not in data, f"{name} says where it was made"
    assert {"app/packed_shop/app.py", "app/packed_shop/preparation.py", "app/packed_shop/__init__.py"} <= set(files)
    assert all(path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in context.rglob("*"))


def test_what_should_not_be_packaged_is_refused(
    project: Path, context: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        capfd.readouterr()
        assert cli.call(["package", str(project), *arguments, "--json"]) in (1, 2)
        return str(json.loads(capfd.readouterr().out)["error"]["code"])

    before = content(context)
    none = str(context.parent / "none")
    assert refused("--features", "--out", str(context)) == "package-unwritable"
    assert refused("--out", none) == "package-needs-features"
    assert refused("--features", "--out", none, "--host-name", "a\nb") == "package-name-unusable"
    assert refused("--features", "--out", none, "--namespace", "$(id)") == "package-name-unusable"
    assert refused("--features", "--out", none, "--image", "a b") == "image-reference-unusable"
    assert refused("--features", "--out", none, "--journal", "x") == "usage"
    assert refused("sent_back-9", "--features", "--out", none) == "no-such-version"
    session = projects.opened(project)
    row = version.find(session.facts, APP, FIRST)
    fell = rollout.Aborted(version=FIRST, epoch=9, reason="too slow")
    session.facts.append([Fact(APP, MODEL, fell)])
    assert rollout.now(session.facts, APP, MODEL).held == {FIRST: "too slow"} and row.decision == "release"
    assert refused(FIRST, "--features", "--out", none) == "package-not-released"
    assert not Path(none).exists() and content(context) == before
    assert not [path for path in context.parent.iterdir() if path.name.startswith(".none")]


def test_a_container_answers_as_home_does_and_its_answers_come_home(
    project: Path, context: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    installed, image = tmp_path / "installed", Path(shutil.copytree(context, tmp_path / "image"))
    with zipfile.ZipFile(next((context / "wheels").glob("flyball-*.whl"))) as wheel:
        wheel.extractall(installed)
    keys = tmp_path / "secrets" / "keys"
    keys.mkdir(parents=True)
    shutil.copy(os.environ["FLYBALL_KEY"], keys / "signing.pem")
    shutil.copy(project / ".flyball" / "keys.json", keys)
    for path in keys.iterdir():
        path.chmod(0o440)
    for name in ("data", "run"):
        (tmp_path / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLYBALL_PORT": str(port),
        "FLYBALL_HOST": "127.0.0.1",
        **{f"FLYBALL_{n.upper()}": str(tmp_path / n) for n in ("secrets", "data", "run")},
    }
    before = content(image)
    command = [sys.executable, str(image / "start.py")]
    assert subprocess.run([*command, "health"], env=environment, check=False).returncode == 1
    with subprocess.Popen([*command, "--quiet"], env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            told = asked(port, server)
            alive = subprocess.run([*command, "health"], env=environment, check=False).returncode
        finally:
            server.send_signal(signal.SIGTERM)
            said = server.communicate(timeout=15)[1]
    assert server.returncode == 0 and "The history cannot be read" in said, said
    assert alive == 0 and told["version"] == FIRST and content(image) == before
    projects.forget(project)
    with Predictor.open(str(project)) as here:
        assert told["output"] == here.predict(ROW).output
    home = Path(shutil.copytree(project / ".flyball", tmp_path / "home"))
    (home / "journal").mkdir(exist_ok=True)
    for segment in (tmp_path / "data/home/journal").glob("*.sqlite"):
        shutil.copy(segment, home / "journal")
    capfd.readouterr()
    projects.forget(project)
    assert cli.call(["why", str(project), told["id"], "--home", str(home), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["output"] == told["output"]


def asked(port: int, server: subprocess.Popen[str]) -> Any:
    """The answer to one question, asked by a name that the cluster knows, once the server is ready; a wrong name gets none."""
    end = time.monotonic() + 90
    while True:
        asks = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            asks.request("GET", "/readyz", headers={"Host": "localhost"})
            assert asks.getresponse().read()
            break
        except ConnectionError:
            assert server.poll() is None and time.monotonic() < end, "it did not start"
            time.sleep(0.05)
    headers = {
        "Host": "packed-shop.default.svc",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {TOKEN}",
    }
    found = {}
    for name, sent in (
        ("right", headers),
        ("nameless", headers | {"Host": "evil"}),
        ("keyless", {"Host": headers["Host"]}),
    ):
        asks.request("POST", "/predict", json.dumps(ROW), sent)
        reply = asks.getresponse()
        found[name] = (reply.status, json.loads(reply.read()))
    asks.close()
    assert found["nameless"][1]["error"]["code"] == "foreign-host" and found["keyless"][0] == 401
    assert found["right"][0] == 200, found
    return found["right"][1]
