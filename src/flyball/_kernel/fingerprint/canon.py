"""Canonical bytes: how a value is spelt so that equal means equal, and unequal stays unequal.

A **form** is a value spelt out. Every form carries its type's tag and its length, so that no two different structures can
run together into the same bytes (the encoding is injective). A form is bytes as soon as everything within it is known.

Code refers to code, also in circles, so a definition (function, class, module) is a **node** of a graph and is met in
forms as a `Ref`. `digest` names the graph that hangs below a root by its structure alone: neither memory addresses, nor
names, nor the order in which nodes were found take part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Ref:
    """A definition, by its place among the nodes."""

    node: int


@dataclass(frozen=True, slots=True)
class Group:
    """Forms of which at least one holds a `Ref`; without order their bytes are sorted."""

    tag: str
    items: tuple[Form, ...]
    ordered: bool


Form: TypeAlias = bytes | Ref | Group


def leaf(tag: str, payload: bytes) -> bytes:
    """`payload` under its type: one byte and the tag, eight bytes of length, the payload."""
    name = tag.encode()
    return len(name).to_bytes(1, "big") + name + len(payload).to_bytes(8, "big") + payload


def text(tag: str, payload: str) -> bytes:
    """A leaf of text; lone surrogates are kept apart instead of refused."""
    return leaf(tag, payload.encode("utf-8", "surrogatepass"))


def group(tag: str, items: Sequence[Form], *, ordered: bool = True) -> Form:
    """Several forms as one."""
    known = [item for item in items if isinstance(item, bytes)]
    if len(known) < len(items):
        return Group(tag, tuple(items), ordered)
    return leaf(tag, b"".join(known if ordered else sorted(known)))


def digest(root: Form, nodes: Sequence[Form]) -> str:
    """SHA-256 of `root` and of all nodes, in 64 hexadecimal digits.

    Nodes are told apart by refinement, as states of an automaton are: all start equal, and each round hashes every node
    with what its references were worth a round ago. When a round tells no more nodes apart, the partition is stable, and
    the set of the last hashes maps each class to its content and successors: two graphs agree only if they are bisimilar.

    Args:
        root: what is asked about.
        nodes: every node that can be reached from the root, and no other; a `Ref` is an index into it.
    """
    worth, before = [b""] * len(nodes), 0
    while True:
        worth = [hashlib.sha256(_bytes(node, worth)).digest() for node in nodes]
        classes = set(worth)
        if len(classes) == before:
            break
        before = len(classes)
    whole = hashlib.sha256(leaf("root", _bytes(root, worth)))
    whole.update(leaf("nodes", b"".join(sorted(classes))))
    return whole.hexdigest()


def _bytes(form: Form, worth: Sequence[bytes]) -> bytes:
    if isinstance(form, bytes):
        return form
    if isinstance(form, Ref):
        return leaf("ref", worth[form.node])
    parts = [_bytes(item, worth) for item in form.items]
    return leaf(form.tag, b"".join(parts if form.ordered else sorted(parts)))
