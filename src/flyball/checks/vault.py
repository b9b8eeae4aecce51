"""What every vault does. Subclass `VaultSuite`, supply the fixture `vault`, and run it with pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball.data.seal import Vault

DIGESTS = [f"{n:032x}" for n in range(1200)]


class VaultSuite:
    """The behaviour of a vault."""

    @pytest.fixture
    def vault(self) -> Vault:
        """An empty vault."""
        raise NotImplementedError

    def test_a_digest_has_one_token_for_good(self, vault: Vault) -> None:
        """However often it is asked for, and beside whichever others."""
        first = vault.tokens(DIGESTS[:10])
        again = vault.tokens(DIGESTS)
        assert {digest: again[digest] for digest in DIGESTS[:10]} == first
        assert vault.tokens([DIGESTS[5], DIGESTS[5]]) == {DIGESTS[5]: first[DIGESTS[5]]}

    def test_no_two_digests_share_a_token(self, vault: Vault) -> None:
        """And a token says nothing of its digest."""
        found = vault.tokens(DIGESTS)
        assert set(found) == set(DIGESTS)
        assert len({*found.values(), *DIGESTS}) == 2 * len(DIGESTS)
        assert {len(token) for token in found.values()} == {32}

    def test_finding_makes_none(self, vault: Vault) -> None:
        """What was never asked for has no token, also in a vault that nothing was ever put in."""
        assert vault.find(DIGESTS[0]) is None
        assert vault.forget(DIGESTS[:1]) == 0
        made = vault.tokens(DIGESTS[:1])
        assert vault.find(DIGESTS[0]) == made[DIGESTS[0]]
        assert vault.find(DIGESTS[1]) is None
        assert vault.tokens([]) == {}

    def test_what_is_forgotten_never_comes_back(self, vault: Vault) -> None:
        """Its next token is another one; the others stay."""
        before = dict(vault.tokens(DIGESTS[:3]))
        assert vault.forget([DIGESTS[0], DIGESTS[0], DIGESTS[7]]) == 1
        assert vault.find(DIGESTS[0]) is None
        after = vault.tokens(DIGESTS[:3])
        assert after[DIGESTS[0]] != before[DIGESTS[0]]
        assert [after[d] for d in DIGESTS[1:3]] == [before[d] for d in DIGESTS[1:3]]

    def test_threads_agree(self, vault: Vault) -> None:
        """Who asks at the same time gets the same."""
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: dict(vault.tokens(DIGESTS[:300])), range(8)))
        assert all(each == found[0] for each in found)
