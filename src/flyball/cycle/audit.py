"""Who did what: the deeds of persons, read from the signed history. What the loop did by itself is not among them.

Most verbs of an operator leave a fact of their own that names the key; one that leaves none is recorded here as a deed, before
it begins. A test walks over every fact with a `by`, so that none is forgotten here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from flyball._kernel import facts
from flyball._kernel.facts import Fact, Said
from flyball._kernel.ports import Facts
from flyball.cycle.session import Session
from flyball.release import rollout

HOLDER: Final = "holder of the signing key"
"""Who restores: a backup holds no keys. No key has such a name."""


class Acted(Said, frozen=True, kw_only=True, tag="cycle.acted"):
    """Somebody ran a verb.

    Attributes:
        verb: such as `data compact`.
        of: what it was about, such as a table; "" for all of it.
        by: the name of the key.
    """

    verb: str
    of: str = ""
    by: str


WORDS: Final[dict[str, str]] = {
    "cycle.acted": "{verb} {of}",
    "cycle.erased": "erased {column} {op} ... [{subject:.16}]",
    "cycle.erasing": "began to erase {column} {op} ... [{subject:.16}]",
    "data.retained": "deleted {rows} rows of {table} from before {before:.10}",
    "data.withdrawn": "rolled {table} back to {to}",
    "release.aborted": "aborted {version}",
    "release.approved": "said {word} to {version}",
    "release.paused": "paused {model}",
    "release.promoted": "made {version} champion{overridden}",
    "release.resumed": "resumed {model}",
    "release.rolled_back": "rolled {version} back to {to}",
    "release.shadowed": "had {version} compute beside who answers",
    "release.started": "sent {version} on its way{overridden}",
    "release.unshadowed": "let {version} compute no more",
    "serve.dropped": "dropped {answers} answers from before {before}",
    "serve.keeping": "had answers kept for {days}",
    "serve.key_made": "made the key {key}: {scopes}",
    "serve.key_revoked": "took the key {key} away",
    "serve.key_rotated": "gave the key {key} another token{rated}",
}
"""The kinds of facts that name who did it -> what that was."""


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """What a person did.

    Attributes:
        at: when it was recorded.
        by: the name of the key.
        model: which model it was about; "" for all of the app.
        kind: of the fact, and `seq` its number, by which it is found in the history.
        reason: as it was given; "" where none was.
    """

    at: datetime
    by: str
    what: str
    reason: str
    model: str
    kind: str
    seq: int


def record(session: Session, verb: str, of: str | None, *, by: str) -> None:
    """Say that somebody is about to run a verb; nothing is done of which nobody knows who did it."""
    session.facts.append([Fact(session.app.name, "", Acted(verb=verb, of=of or "", by=by))])


def restored(log: Facts, backup: str) -> None:
    """Say in the history of a restored home that it was restored: by whom, only the signing key knows."""
    if names := sorted({fact.app for fact in log.read()}):
        log.append([Fact(name, "", Acted(verb="restore", of=backup, by=HOLDER)) for name in names])


def deeds(session: Session, since: datetime | None = None, by: str = "") -> list[Deed]:
    """What persons did, newest first.

    Args:
        since: leaves out what was before; None leaves out nothing.
        by: the name of a key; "" for all.

    Raises:
        StateError: `history-broken`: what is recorded was changed afterwards, and nothing of it can be relied on.
    """
    session.facts.verify()
    found = []
    for fact in session.facts.read(kinds=frozenset(WORDS), app=session.app.name):
        said: dict[str, Any] = msgspec.json.decode(fact.said)
        who = said.get("by", rollout.LOOP)  # a default is not stored
        if who == rollout.LOOP or (by and who != by) or (since is not None and fact.at < since):
            continue
        found.append(
            Deed(
                at=fact.at,
                by=who,
                what=_words(fact, said),
                reason=said.get("reason", ""),
                model=fact.model,
                kind=fact.kind,
                seq=fact.seq,
            )
        )
    return found[::-1]


def _words(fact: facts.Stored, said: dict[str, Any]) -> str:
    more = {
        "of": said.get("of", ""),
        "model": fact.model,
        "days": f"{said['days']} days" if said.get("days") is not None else "ever",
        "word": "yes" if said.get("yes", True) else "no",
        "overridden": " although its gates did not" if said.get("overridden") else "",
        "scopes": ", ".join(said.get("scopes", ())),
        "rated": f", and the rate {said['rate']}" if said.get("rate") else "",
    }
    return WORDS[fact.kind].format_map(said | more).strip()
