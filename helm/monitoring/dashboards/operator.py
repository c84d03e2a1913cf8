"""The operator: how soon what is declared is true."""

from __future__ import annotations

from typing import Final

from helm.monitoring.dashboards.queries import quantile, rate, total
from helm.monitoring.panels import Dashboard, Panel

_O: Final = "lockstep_operator"

OPERATOR: Final = Dashboard(
    "lockstep-operator",
    "Lockstep / Operator",
    (
        (
            "Convergence",
            (
                Panel("Operators that work", ((f"sum({_O}_leader)", "leaders"),), "stat", width=6),
                Panel(
                    "Broker does not answer",
                    ((f"max({_O}_broker_circuit_open)", "open"),),
                    "stat",
                    width=6,
                    red_above=1,
                ),
                Panel(
                    "Objects not ready",
                    ((total(f"{_O}_resources", 'ready="False"'), "objects"),),
                    "stat",
                    width=6,
                    red_above=1,
                ),
                Panel(
                    "Deletions blocked",
                    ((total(f"{_O}_deletions_blocked"), "objects"),),
                    "stat",
                    width=6,
                ),
                Panel(
                    "From a change to Ready",
                    tuple(
                        (
                            quantile(share, f"{_O}_convergence_seconds", by="kind"),
                            f"p{share * 100:g} {{{{kind}}}}",
                        )
                        for share in (0.5, 0.99)
                    ),
                    unit="s",
                ),
                Panel(
                    "Objects that wait",
                    ((total(f"{_O}_workqueue_depth", by="priority"), "{{priority}}"),),
                    stacked=True,
                ),
                Panel(
                    "The longest wait",
                    ((f"max({_O}_workqueue_oldest_age_seconds)", "oldest"),),
                    unit="s",
                ),
                Panel(
                    "Looks, by result",
                    ((rate(f"{_O}_reconciles_total", by="result"), "{{result}}"),),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Time of a look, 99th percentile",
                    ((quantile(0.99, f"{_O}_reconcile_duration_seconds", by="kind"), "{{kind}}"),),
                    unit="s",
                ),
                Panel(
                    "Tried again",
                    ((rate(f"{_O}_retries_total", by="kind"), "{{kind}}"),),
                    unit="ops",
                ),
            ),
        ),
        (
            "Objects",
            (
                Panel(
                    "By what Ready says",
                    (
                        (
                            total(f"{_O}_resources", by="kind, ready, reason"),
                            "{{kind}} {{ready}} {{reason}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Drift set right",
                    (
                        (
                            f"sum by (kind) (increase({_O}_drift_corrections_total[1h]))",
                            "{{kind}} in an hour",
                        ),
                    ),
                ),
                Panel(
                    "Orphans",
                    ((f"sum by (kind) ({_O}_orphans_total)", "{{kind}}"),),
                    text="Queues left in the broker because their namespace was deleted.",
                ),
            ),
        ),
        (
            "Calls",
            (
                Panel(
                    "To Kubernetes",
                    (
                        (
                            rate(f"{_O}_kube_requests_total", by="verb, target"),
                            "{{verb}} {{target}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Refused by Kubernetes",
                    (
                        (
                            rate(f"{_O}_kube_requests_total", 'code!~"2.."', by="target, code"),
                            "{{target}} {{code}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "To the broker",
                    ((rate(f"{_O}_broker_requests_total", by="rpc, code"), "{{rpc}} {{code}}"),),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Time of calls to the broker, 99th percentile",
                    (
                        (
                            quantile(0.99, f"{_O}_broker_request_duration_seconds", by="rpc"),
                            "{{rpc}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "Last event of a watch",
                    (
                        (
                            f"time() - max by (kind) ({_O}_watch_last_event_timestamp_seconds)",
                            "{{kind}}",
                        ),
                    ),
                    unit="s",
                    text="Where nothing changes, nothing is heard.",
                ),
                Panel(
                    "Leader changes and a late loop",
                    (
                        (f"sum(increase({_O}_leader_transitions_total[1h]))", "changes in an hour"),
                        (f"max({_O}_loop_lag_seconds)", "loop is late, seconds"),
                    ),
                ),
            ),
        ),
    ),
    namespace_of="lockstep_operator_leader",
)
