"""The Dockerfile of a packaged version, and what lies beside it for people.

Nothing of an app goes into the Dockerfile but the two base images, whose references are matched as a whole: names, versions and
options are data in `flyball-package.json`, which `start` reads. So there is no place where a quote or a newline could be code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from flyball._kernel.errors import DeclarationError

_PART: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?=.{{1,400}}\Z)(?:[A-Za-z0-9.-]{{1,253}}(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
"""distribution/reference, without digests of other kinds."""

USER: Final = 10001
"""Who runs in the container: a number, so that Kubernetes can see that it is not root."""

DOCKERIGNORE: Final = """\
# Only what the Dockerfile names reaches the builder.
*
!app
!home
!wheels
!requirements.txt
!start.py
!flyball-package.json
**/.*
**/__pycache__
**/*.pem
**/*.key
**/token
**/keys.json
"""

_TLS: Final = ", tls/tls.crt and tls/tls.key"

_DOCKERFILE: Final = """\
# Written by `flyball package`; made again, the same version makes the same bytes.
# A tag can be moved: pin both images by digest (--base IMAGE@sha256:... --build-base ...), which nobody can look up offline.
FROM {build} AS build
COPY requirements.txt /build/
COPY wheels /build/wheels
WORKDIR /build
RUN ["python3", "-m", "venv", "/opt/flyball"]
RUN ["/opt/flyball/bin/python", "-m", "pip", "install", {options}, "-r", "requirements.txt"]
{own}# LightGBM needs the system's OpenMP, which the slim image does not have.
RUN mkdir /opt/flyball/openmp && cp -L /usr/lib/*/libgomp.so.1 /opt/flyball/openmp/
COPY app /srv/flyball/app
COPY home /srv/flyball/home
COPY start.py flyball-package.json /srv/flyball/
RUN ["/opt/flyball/bin/python", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/srv/flyball/app"]
RUN ["chmod", "-R", "a+rX,go-w", "/srv/flyball"]

FROM {base}
COPY --from=build /opt/flyball /opt/flyball
COPY --from=build /srv/flyball /srv/flyball
RUN ["install", "-d", "-m", "0700", "-o", "{user}", "-g", "{user}", "/data", "/run/flyball"]
ENV HOME=/tmp LD_LIBRARY_PATH=/opt/flyball/openmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER {user}:{user}
# The app is loaded once while the image is built: what it lacks shows here, and not in production.
RUN ["/opt/flyball/bin/python", "/srv/flyball/start.py", "check"]
VOLUME ["/data"]
EXPOSE 8741
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \\
  CMD ["/opt/flyball/bin/python", "/srv/flyball/start.py", "health"]
ENTRYPOINT ["/opt/flyball/bin/python", "/srv/flyball/start.py"]
"""


def reference(text: str) -> str:
    """A reference to an image, as it was given.

    Raises:
        DeclarationError: `image-reference-unusable`.
    """
    if _REFERENCE.match(text) is None:
        raise DeclarationError(
            "image-reference-unusable",
            f"{text[:80]!r} names no image.",
            why="It is written into a Dockerfile or a manifest, so only what a registry takes is taken.",
            next="Such as registry.example.org/team/flights:3, with @sha256:... behind it where it shall not move.",
        )
    return text


def dockerfile(base: str, build: str, *, hashed: bool, wheel: str) -> str:
    """The Dockerfile.

    Args:
        hashed: whether the context holds all wheels, so that they are checked and nothing is fetched.
        wheel: flyball's own, in wheels/.
    """
    options = ["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    own = ""
    if hashed:
        options += ["--no-index", "--find-links=wheels", "--require-hashes"]
    else:
        pip = ["/opt/flyball/bin/python", "-m", "pip", "install", *options, "--no-index", f"wheels/{wheel}"]
        own = f"RUN {json.dumps(pip)}\n"
    quoted = json.dumps(options)[1:-1]
    return _DOCKERFILE.format(base=reference(base), build=reference(build), options=quoted, own=own, user=USER)


def readme(name: str, image: str, versions: Mapping[str, str], *, plain: bool, names: Sequence[str]) -> str:
    """What to do with the context."""
    answers = "\n".join(f"- {model}: {version}" for model, version in versions.items())
    tls = (
        "\n`--plain`: this server does not encrypt. Put it behind a proxy or a mesh that does.\n"
        if plain
        else f"\n    kubectl create secret tls {name}-tls --cert=tls.crt --key=tls.key\n"
    )
    return f"""\
# {name} in a container

It answers with

{answers}

and nothing else: it has no history, no training data and no loop, and follows no release.

    docker build --tag {image} .
    docker push {image}

Pin what you pushed: put its digest into `kubernetes.yaml` (`image: {image.partition("@")[0]}@sha256:...`).

Keys are in no image. They are mounted, from a home's key (`FLYBALL_KEY`) and its `keys.json`:

    kubectl create secret generic {name}-keys --from-file=signing.pem=signing.pem --from-file=keys.json=keys.json
{tls}
    kubectl apply --filename kubernetes.yaml

By hand, where `secrets/` has what user {USER} can read, keys/signing.pem and keys/keys.json{_TLS if not plain else ""}:

    docker run --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp \\
      --tmpfs /run/flyball:uid={USER},mode=0700 --volume {name}-journal:/data \\
      --volume "$PWD/secrets:/run/secrets/flyball:ro" --publish 8741:8741 {image}

It answers to the names {", ".join(names)}, and to no other Host.
"""
