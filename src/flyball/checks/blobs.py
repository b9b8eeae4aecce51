"""What every store of artifacts does. Subclass `BlobsSuite`, supply its two fixtures, and run it with pytest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball._kernel.errors import StateError
from flyball._kernel.ports import Blobs

CONTENTS = [b"", b"model", b"\x00\xff\r\n", b"x" * 3_000_000]

NO_DIGESTS = [
    "",
    "0" * 63,
    "0" * 65,
    "0" * 63 + "g",
    "0" * 64 + "\n",
    "\x00" * 64,
    "A" * 64,
    "٣" * 64,
    "../../../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "..\\..\\etc\\passwd",
    "file:///etc/passwd",
    "." * 64,
    "/" * 64,
]
"""Names that address nothing: wrong sizes, wrong digits, other spellings of a digit, and ways out of a directory."""


class BlobsSuite:
    """The behaviour of a store of artifacts."""

    @pytest.fixture
    def blobs(self) -> Blobs:
        """The store under test, empty."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self, blobs: Blobs) -> Callable[[str, bytes], None]:
        """Replaces the stored bytes of a digest, behind the store's back."""
        raise NotImplementedError

    @pytest.mark.parametrize("data", CONTENTS, ids=len)
    def test_what_is_put_is_got(self, blobs: Blobs, data: bytes) -> None:
        """Under its SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        assert not blobs.has(digest)
        assert blobs.put(data) == digest
        assert blobs.has(digest)
        assert blobs.get(digest) == data

    def test_putting_twice_is_putting_once(self, blobs: Blobs) -> None:
        """The same content has the same address."""
        assert blobs.put(b"model") == blobs.put(b"model")
        assert blobs.get(blobs.put(b"model")) == b"model"

    def test_what_was_never_put_is_not_there(self, blobs: Blobs) -> None:
        """And says so."""
        with pytest.raises(StateError, match="no-such-artifact"):
            blobs.get("0" * 64)

    @pytest.mark.parametrize("name", NO_DIGESTS)
    def test_no_other_name_addresses_anything(self, blobs: Blobs, name: str) -> None:
        """Whatever is asked for, in whatever spelling."""
        blobs.put(b"model")
        assert not blobs.has(name)
        with pytest.raises(StateError, match="no-such-artifact"):
            blobs.get(name)

    @pytest.mark.parametrize("found", [b"", b"mode", b"Model", b"model\x00"])
    def test_changed_bytes_are_refused(self, blobs: Blobs, damage: Callable[[str, bytes], None], found: bytes) -> None:
        """At every load, not only at the first."""
        digest = blobs.put(b"model")
        assert blobs.get(digest) == b"model"
        damage(digest, found)
        with pytest.raises(StateError, match="artifact-changed"):
            blobs.get(digest)

    def test_putting_again_heals(self, blobs: Blobs, damage: Callable[[str, bytes], None]) -> None:
        """Content that is put can be got, whatever lay there."""
        damage(blobs.put(b"model"), b"rot")
        assert blobs.get(blobs.put(b"model")) == b"model"

    def test_many_put_at_once(self, blobs: Blobs) -> None:
        """Writers of the same and of other contents do not disturb one another."""
        contents = [b"%d" % (n % 5) for n in range(40)]
        with ThreadPoolExecutor(8) as pool:
            digests = list(pool.map(blobs.put, contents))
        assert [blobs.get(digest) for digest in digests] == contents

    def test_what_is_dropped_is_gone(self, blobs: Blobs) -> None:
        """And nothing else; what is not there is not counted, and what is put again is there again."""
        kept, gone = blobs.put(b"kept"), blobs.put(b"gone")
        assert list(blobs.names()) == sorted([kept, gone])
        assert blobs.drop([gone, "0" * 64, *NO_DIGESTS]) == 1
        assert blobs.drop([gone]) == 0
        assert list(blobs.names()) == [kept]
        assert not blobs.has(gone)
        with pytest.raises(StateError, match="no-such-artifact"):
            blobs.get(gone)
        assert blobs.get(kept) == b"kept"
        assert blobs.get(blobs.put(b"gone")) == b"gone"
