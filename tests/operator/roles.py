"""What an operator may do in Kubernetes: what its chart grants."""

from __future__ import annotations

from typing import Any

GROUP = "lockstep.dev"


def cluster_rules() -> list[dict[str, Any]]:
    """Return the rules of the operator's ClusterRole."""
    ours = ["queues", "brokers", "deadletterresubmissions"]
    return [
        {"apiGroups": [GROUP], "resources": ours, "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [GROUP], "resources": [f"{one}/status" for one in ours], "verbs": ["patch"]},
        {
            "apiGroups": [GROUP],
            "resources": [f"{one}/finalizers" for one in ours],
            "verbs": ["update"],
        },
        {"apiGroups": [GROUP], "resources": ["brokers"], "verbs": ["create"]},
        {"apiGroups": [GROUP], "resources": ["deadletterresubmissions"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update", "patch"],
        },
    ]
