"""How far two spreads lie apart, told by counts in the same places (see `profile`): psi, and the Jensen-Shannon divergence.

    psi   the population stability index: J-divergence of the shares (Jeffreys 1946; Siddiqi, Credit Risk Scorecards, 2006)
    js    the Jensen-Shannon divergence in nats (Lin 1991); its root is a distance (Endres and Schindelin 2003)

Two samples of one spread also lie apart, the further the smaller they are (Yurdakul and Naranjo 2020); `distances` also
tells how far by chance alone, so that it can be taken off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flyball.data.profile import Counts

Array = npt.NDArray[np.float64]


def distances(window: Counts | Array, reference: Counts | Array) -> tuple[Array, Array, Array, Array]:
    """How far counts lie apart, along the last axis; the rest broadcasts.

    Empty places are smoothed. The reference gets half a count at each place that anybody has seen (Jeffreys' prior; Krichevsky
    and Trofimov 1981). The window gets as much in all, spread as the reference is (Fienberg and Holland 1973), so that a
    small window is drawn towards the reference, not away from it.

    Returns:
        psi, the Jensen-Shannon divergence in nats, and what psi would be by chance from the window, and from the reference;
        the divergence would be an eighth of it (both are chi-squared to the second order).
    """
    seen = (window + reference) > 0
    places = seen.sum(axis=-1, keepdims=True)
    n, m = window.sum(axis=-1, keepdims=True), reference.sum(axis=-1, keepdims=True)
    half = places / 2.0
    p = np.where(seen, (reference + 0.5) / (m + half), 1.0)
    q = np.where(seen, (window + half * np.where(seen, p, 0.0)) / (n + half), 1.0)
    both = (p + q) / 2
    psi = ((q - p) * np.log(q / p)).sum(axis=-1)
    js = (p * np.log(p / both) + q * np.log(q / both)).sum(axis=-1) / 2
    own = ((places - 1) * n / (n + half) ** 2)[..., 0]
    theirs = ((places - 1) / np.maximum(m, 1))[..., 0]
    return psi, js, own, theirs
