"""What an image installs: every library at the version that is installed here, and flyball as a wheel made of itself.

No index says which bytes a version is without being asked. So hashes come from wheels that were downloaded: with them the image
is built from the context alone, and each file is checked; without them versions are pinned, and an index is trusted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from flyball._kernel.errors import StateError
from flyball.cycle import environment
from flyball.cycle.zipped import zipped

OWN: Final = "flyball"
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: flyball\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_PIN: Final = re.compile(r"[a-z0-9][a-z0-9.-]*==[A-Za-z0-9.!+_-]+")


def pinned(needs: Sequence[str]) -> dict[str, str]:
    """The distributions that these and flyball need, with themselves, but for flyball: name -> version."""
    found = environment.distributions((OWN, *sorted(set(needs))))
    return {name: version for name, version in found.items() if name != OWN}


def requirements(pins: Mapping[str, str], own: tuple[str, bytes], wheels: Mapping[str, bytes]) -> str:
    """requirements.txt for pip.

    Args:
        own: flyball's wheel.
        wheels: file name -> bytes, of every distribution; empty where there are none, and nothing is hashed.

    Raises:
        StateError: `package-wheel-missing`; `package-pin-unusable`.
    """
    lines = ["# Every version as it is installed where this was packaged."]
    hashes: dict[str, list[str]] = {}
    for file, data in sorted(wheels.items()):
        name, version = file.split("-")[:2]
        hashes.setdefault(f"{_plain(name)}=={version}", []).append(hashlib.sha256(data).hexdigest())
    for name, version in pins.items():
        pin = f"{name}=={version}"
        if _PIN.fullmatch(pin) is None:
            raise StateError(
                "package-pin-unusable",
                f"{pin[:120]!r} cannot be required of pip.",
                why="An installed distribution says an unusual version of itself.",
                next="Install it from an index, then package again.",
            )
        if wheels and pin not in hashes:
            raise StateError(
                "package-wheel-missing",
                f"There is no wheel of {pin}.",
                why="With --wheels nothing is fetched when the image is built, so that every wheel must be there.",
                next=f"pip download --no-deps --only-binary=:all: --dest WHEELS {pin}",
            )
        lines.append(" ".join((pin, *(f"--hash=sha256:{each}" for each in hashes.get(pin, ()) if wheels))))
    if wheels:
        lines.append(f"./wheels/{own[0]} --hash=sha256:{hashlib.sha256(own[1]).hexdigest()}")
    return "\n".join((*lines, ""))


def downloaded(folder: Path, pins: Mapping[str, str]) -> dict[str, bytes]:
    """The wheels in a folder that are of these versions: file name -> bytes.

    Raises:
        StateError: `package-wheel-missing`.
    """
    wanted = set(pins.items())
    found = {}
    for path in sorted(folder.glob("*.whl")):
        parts = path.name.removesuffix(".whl").split("-")
        if len(parts) >= 5 and (_plain(parts[0]), parts[1]) in wanted and path.is_file() and not path.is_symlink():
            found[path.name] = path.read_bytes()
    if not found:
        raise StateError(
            "package-wheel-missing",
            f"There is no wheel in {folder} that is needed.",
            next="Package without --wheels, then: pip download --no-deps --requirement requirements.txt --dest WHEELS",
        )
    return found


def wheel() -> tuple[str, bytes]:
    """Flyball as it runs here, as a wheel: its name and its bytes. However it was installed, it is made of its files."""
    distribution = metadata.distribution(OWN)
    beside = f"{OWN}-{distribution.version}.dist-info"
    files = {f"{OWN}/{name}": data for name, data in _below(resources.files(OWN), "")}
    files[f"{beside}/WHEEL"] = _WHEEL.encode()
    for name in ("METADATA", "entry_points.txt"):
        files[f"{beside}/{name}"] = (distribution.read_text(name) or "").encode()
    record = f"{beside}/RECORD"
    lines = [f"{name},sha256={_hashed(data)},{len(data)}" for name, data in sorted(files.items())]
    files[record] = "\n".join((*lines, f"{record},,", "")).encode()
    return f"{OWN}-{distribution.version}-py3-none-any.whl", zipped(files)


def _below(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.name.startswith(".") or each.name == "__pycache__":
            continue
        if each.is_dir():
            found += _below(each, f"{prefix}{each.name}/")
        else:
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found


def _hashed(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
