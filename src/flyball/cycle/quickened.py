"""Plans that answer many questions faster than those that a server began with, and with the same bits.

It takes a second of work (another library, graphs, proofs), which nobody should wait for who wants an answer now. So a server
begins without, and this module, which loads what is needed for it, is loaded aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flyball._kernel.errors import FlyballError
from flyball.cycle import artifacts
from flyball.cycle.session import Session
from flyball.learn.export import doubled
from flyball.learn.export.paired import Paired
from flyball.learn.export.predictor import ARTIFACTS
from flyball.learn.finish import NOTHING, Finished, finished
from flyball.serve import pace
from flyball.serve.plan import Plan
from flyball.serve.router import Routed


def quickened(session: Session, known: Mapping[str, Routed]) -> dict[str, Routed]:
    """The same who answer, each by the fastest predictors that there are; what cannot be had leaves one as it is."""
    found: dict[str, Plan] = {}

    def of(plan: Plan) -> Plan:
        if plan.version not in found:
            found[plan.version] = _quick(session, plan)
        return found[plan.version]

    return {
        name: replace(
            each,
            champion=of(each.champion),
            candidate=None if each.candidate is None else of(each.candidate),
            shadows=tuple(beside._replace(plan=of(beside.plan)) for beside in each.shadows),
        )
        for name, each in known.items()
    }


def _quick(session: Session, plan: Plan) -> Plan:
    whole = plan.predictor
    scores, finish = (whole.predictor, whole.finish) if isinstance(whole, Finished) else (whole, NOTHING)
    if scores.name != "lightgbm" or isinstance(scores, Paired):
        return plan
    try:
        manifest = artifacts.load_manifest(session, plan.version)
        many = doubled.load(session.blobs.get(manifest.artifacts[ARTIFACTS["lightgbm"]]))
    except FlyballError:
        return plan
    if many is None:
        return plan
    paired = finished(Paired(scores, many), finish)
    return replace(plan, predictor=paired, batches=pace.batches(paired, session.clock.monotonic))
