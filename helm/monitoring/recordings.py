"""Figures that Prometheus computes ahead, because several alerts and panels need them.

Here belong recording rules (design 5.5). Never here: what is worth an alert (`alerts`). The law: each is per release,
and those of entities are sums over partitions, so that a move between owners is not seen in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from helm.monitoring.expressions import ENTITY

# Of owners' own service only the front ends are callers; it would count every call twice.
PUBLIC: Final = 'method=~"(MessagingService|AdminService)/.*"'
FAILED: Final = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED"'
ENQUEUED: Final = 'lockstep_messages_enqueued_total{origin!="schedule"}'
DONE: Final = 'lockstep_messages_settled_total{outcome=~"completed|received_and_deleted"}'


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule: its name, `lockstep:<what>:<how>`, and its expression."""

    name: str
    expression: str


def _error_ratio(window: str) -> Recording:
    requests = f"lockstep_frontend_requests_total{{{PUBLIC}}}"
    failed = f"lockstep_frontend_requests_total{{{PUBLIC},{FAILED}}}"
    total = f"sum by (namespace) (rate({requests}[{window}]))"
    return Recording(
        f"lockstep:frontend_errors:ratio{window}",
        f"(sum by (namespace) (rate({failed}[{window}])) or 0 * {total}) / ({total} > 0)",
    )


def _quantile(
    quantile: str, histogram: str, window: str, *, by: str = "", matching: str = ""
) -> str:
    labels = ", ".join(["namespace", "le", *([by] if by else [])])
    selector = f"{histogram}_bucket{matching}"
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({selector}[{window}])))"


RECORDINGS: Final = (
    *(_error_ratio(window) for window in ("5m", "30m", "1h", "6h")),
    Recording(
        "lockstep:frontend_latency_seconds:p99_5m",
        _quantile(
            "0.99",
            "lockstep_frontend_request_duration_seconds",
            "5m",
            by="method",
            matching=f"{{{PUBLIC}}}",
        ),
    ),
    Recording("lockstep:entity_in:rate5m", f"sum by ({ENTITY}) (rate({ENQUEUED}[5m]))"),
    Recording("lockstep:entity_out:rate5m", f"sum by ({ENTITY}) (rate({DONE}[5m]))"),
    Recording(
        "lockstep:entity_net:rate15m",
        f"sum by ({ENTITY}) (rate({ENQUEUED}[15m])) - sum by ({ENTITY}) (rate({DONE}[15m]))",
    ),
    Recording(
        "lockstep:entity_backlog:sum",
        f'sum by ({ENTITY}) (lockstep_entity_messages{{state=~"ready|locked|deferred|delayed"}})',
    ),
    Recording(
        "lockstep:entity_dead_letters:sum",
        f'sum by ({ENTITY}) (lockstep_entity_messages{{state="dead_letter"}})',
    ),
    Recording(
        "lockstep:entity_drain_seconds",
        "lockstep:entity_backlog:sum / clamp_min(lockstep:entity_out:rate5m, 0.001)",
    ),
    Recording(
        "lockstep:session_wait_seconds:p95_5m",
        _quantile("0.95", "lockstep_session_wait_seconds", "5m"),
    ),
    Recording(
        "lockstep:time_in_queue_seconds:p95_5m",
        _quantile("0.95", "lockstep_time_in_queue_seconds", "5m"),
    ),
    Recording(
        "lockstep:partition_available:ratio",
        'min by (namespace) (sum by (namespace, pod) (lockstep_partitions{state="owned"})'
        " / sum by (namespace, pod) (lockstep_partitions))",
    ),
)
