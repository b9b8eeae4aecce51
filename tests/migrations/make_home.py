"""Make the home of a release, as a backup of a few kilobytes: `python -m tests.migrations.make_home`, from the root.

It writes homes/VERSION.tar.xz: a backup of a small app that ingested, trained, released, answered and heard outcomes, and
beside it in expected.json what it said of itself. Run once, when a release is made; what is there is never made anew, since
that is the point: later releases must open it. The signing key is a constant, so that the test has it too.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HOMES = Path(__file__).parent / "homes"
ROWS = 900
QUESTIONS = 12


def write_key(path: Path) -> Path:
    """The key of every home here: nothing is protected by it."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key for tests").digest())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path


def question(n: int) -> dict[str, object]:
    return {
        "order_id": f"asked-{n}",
        "placed": "2025-06-29T12:00:00Z",
        "category": ["books", "shoes", "garden", "phones"][n % 4],
        "channel": "web",
        "price": 10.0 + n,
        "customer": "c007",
    }


def ask(project: Path) -> list[dict[str, object]]:
    """Questions to a real server, and what came of some of them."""
    command = [sys.executable, "-m", "flyball", "serve", str(project), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = ""
        while not said.endswith("}\n}\n"):
            said += server.stdout.readline()
        with closing(http.client.HTTPConnection(json.loads(said)["address"].removeprefix("http://"))) as connection:
            answers = []
            for n in range(QUESTIONS):
                connection.request("POST", "/predict", json.dumps(question(n)), {"Content-Type": "application/json"})
                answers.append(json.loads(connection.getresponse().read()))
        server.terminate()
    return answers


def main() -> None:
    """Make it."""
    import flyball
    from flyball.adapters.embedded import backup
    from flyball.cycle import account, apply
    from flyball.data import contract
    from flyball.release import rollout
    from flyball.serve.outcomes import New
    from tests.oracles import projects

    target = HOMES / f"{flyball.__version__}.tar.xz"
    assert not target.exists(), "it would no longer be what that release wrote"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FLYBALL_KEY"] = str(write_key(folder / "key" / "signing.pem"))
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        project = projects.make(folder / "shop")
        data = project / "data" / "orders.csv"
        head, *rows = data.read_text().splitlines()
        data.write_text("\n".join([head, *rows[:: len(rows) // ROWS][:ROWS]]) + "\n")
        projects.edit(project / "app.py", "roc_auc >= 0.6,", "roc_auc >= 0.01,")
        session = projects.opened(project)
        apply.apply(session)
        champion = rollout.now(session.facts, "shop", "sent_back").champion
        answers = ask(project)
        key = json.dumps({"order_id": "asked-0"}, separators=(",", ":"))
        now = session.clock.now()
        session.outcomes.post(
            [New(received=now, by="test", model="sent_back", prediction="", key=key, value=1.0, settled=now)]
        )
        account.account(session)
        for report in (session.home / "reports").rglob("*"):
            report.unlink() if report.is_file() else None
        backup.take(session, folder / "backup")
        expected = {
            "version": flyball.__version__,
            "head": session.facts.head().hash,
            "champion": champion,
            "answers": answers,
            "tables": {contract.spec(t).name: ROWS for t in session.app.tables()},
        }
        (folder / "backup" / "expected.json").write_text(json.dumps(expected, indent=1))
        HOMES.mkdir(exist_ok=True)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted((folder / "backup").rglob("*")):
                if path.is_file() and path.name != ".lock":
                    archive.add(path, path.relative_to(folder / "backup").as_posix())


if __name__ == "__main__":
    main()
