"""The Kubernetes manifests of a packaged version: the "restricted" Pod Security Standard, and a journal that outlives its pod.

Each replica has a journal of its own, so by default it is a StatefulSet with a claim a replica, kept when a pod goes: every
answer stays on record. A Deployment, whose journals go with their pods, is for whoever says so. Keys and certificates are
Secrets by reference. What may speak to the pods is whatever wears the label `flyball.dev/asks: NAME`; they speak to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from flyball.cycle.packaging.image import USER
from flyball.cycle.packaging.start import PORT

Journal = Literal["claim", "pod"]
DRAINS: Final = 10
"""Seconds in which a server answers what it was asked, once it is told to end; as in `runtime.serving`."""
LEAVES: Final = 5
"""Seconds that a pod goes on before it is told to end: until then some still send to it."""

_Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run.

    Attributes:
        name: of every object; a DNS label of at most 50 characters.
        image: the reference to pull.
        notes: annotations.
        plain: whether somebody else encrypts.
        journal: "claim" (a volume that outlives its pod) or "pod".
    """

    name: str
    namespace: str
    image: str
    notes: Mapping[str, str]
    plain: bool
    journal: Journal


def manifests(work: Workload) -> list[_Object]:
    """All objects, in the order in which they are applied."""
    return [_account(work), _policy(work), _service(work), _workload(work), _budget(work), _scaler(work)]


def names(name: str, namespace: str) -> list[str]:
    """What callers within the cluster call the service."""
    return [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]


def _about(work: Workload, **more: Any) -> _Object:
    return {"name": work.name, "namespace": work.namespace, "labels": _labels(work), **more}


def _labels(work: Workload) -> _Object:
    return {"app.kubernetes.io/name": work.name, "app.kubernetes.io/managed-by": "flyball"}


def _chosen(work: Workload) -> _Object:
    return {"matchLabels": {"app.kubernetes.io/name": work.name}}


def _account(work: Workload) -> _Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _about(work),
        "automountServiceAccountToken": False,
    }


def _policy(work: Workload) -> _Object:
    asks = {"podSelector": {"matchLabels": {"flyball.dev/asks": work.name}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _about(work),
        "spec": {
            "podSelector": _chosen(work),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [asks], "ports": [{"protocol": "TCP", "port": PORT}]}],
            "egress": [],
        },
    }


def _service(work: Workload) -> _Object:
    scheme = "http" if work.plain else "https"
    port = {"name": scheme, "port": PORT, "targetPort": "serving", "protocol": "TCP", "appProtocol": scheme}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _about(work),
        "spec": {"selector": _chosen(work)["matchLabels"], "ports": [port]},
    }


def _workload(work: Workload) -> _Object:
    # How many there are is the scaler's: said here too, each `kubectl apply` would set it back.
    pods = {"selector": _chosen(work), "template": _template(work), "minReadySeconds": 5}
    if work.journal == "pod":
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        spec: _Object = {**pods, "strategy": rolling}
    else:
        wants = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}}
        spec = {
            **pods,
            "serviceName": work.name,
            "podManagementPolicy": "Parallel",
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": _labels(work)}, "spec": wants}],
        }
    kind = "Deployment" if work.journal == "pod" else "StatefulSet"
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": _about(work, annotations=dict(work.notes)),
        "spec": spec,
    }


def _template(work: Workload) -> _Object:
    return {
        "metadata": {"labels": _labels(work), "annotations": dict(work.notes)},
        "spec": {
            "serviceAccountName": work.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": LEAVES + DRAINS + 15,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [_spread(work, each) for each in ("kubernetes.io/hostname", _ZONE)],
            "containers": [_container(work)],
            "volumes": _volumes(work),
        },
    }


_ZONE: Final = "topology.kubernetes.io/zone"


def _spread(work: Workload, key: str) -> _Object:
    said = {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway"}
    return {**said, "labelSelector": _chosen(work)}


def _container(work: Workload) -> _Object:
    waits = f"import time; time.sleep({LEAVES})"
    return {
        "name": "flyball",
        "image": work.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "serving", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "500m", "memory": "768Mi", "ephemeral-storage": "128Mi"},
            "limits": {"memory": "1536Mi", "ephemeral-storage": "2Gi"},
        },
        "startupProbe": {**_probe(work, "/readyz"), "periodSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {**_probe(work, "/readyz"), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**_probe(work, "/healthz"), "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"exec": {"command": ["/opt/flyball/bin/python", "-c", waits]}}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "run", "mountPath": "/run/flyball"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            {"name": "keys", "mountPath": "/run/secrets/flyball/keys", "readOnly": True},
            *([] if work.plain else [{"name": "tls", "mountPath": "/run/secrets/flyball/tls", "readOnly": True}]),
        ],
    }


def _probe(work: Workload, path: str) -> _Object:
    # A server answers to its own names, and the kubelet asks by an address.
    host = {"name": "Host", "value": "localhost"}
    asks = {"path": path, "port": "serving", "scheme": "HTTP" if work.plain else "HTTPS", "httpHeaders": [host]}
    return {"httpGet": asks, "timeoutSeconds": 3}


def _volumes(work: Workload) -> Sequence[_Object]:
    # 0440: of root and of our group. `start` copies the keys to where nobody else can read them.
    found: list[_Object] = [
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "keys", "secret": {"secretName": f"{work.name}-keys", "defaultMode": 0o440}},
    ]
    if not work.plain:
        found.append({"name": "tls", "secret": {"secretName": f"{work.name}-tls", "defaultMode": 0o440}})
    if work.journal == "pod":
        found.append({"name": "data", "emptyDir": {"sizeLimit": "1Gi"}})
    return found


def _budget(work: Workload) -> _Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _about(work),
        "spec": {"maxUnavailable": 1, "selector": _chosen(work), "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }


def _scaler(work: Workload) -> _Object:
    kind = "Deployment" if work.journal == "pod" else "StatefulSet"
    target = {"type": "Utilization", "averageUtilization": 70}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _about(work),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": work.name},
            "minReplicas": 2,
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }
