"""Sessions: who waits, how long, and how locks end."""

from __future__ import annotations

from typing import Final

from helm.monitoring.dashboards.entity import VARIABLES
from helm.monitoring.dashboards.queries import OF_ENTITY, buckets, quantile, rate, total
from helm.monitoring.panels import Dashboard, Panel

_WAIT: Final = "lockstep_session_wait_seconds"
_RUNNABLE: Final = f'{OF_ENTITY},state=~"ready|locked"'
_OF_SESSIONS: Final = f'{OF_ENTITY},kind="session"'

SESSIONS: Final = Dashboard(
    "lockstep-sessions",
    "Lockstep / Sessions",
    (
        (
            "Waiting",
            (
                Panel(
                    "Sessions",
                    ((total("lockstep_entity_sessions", OF_ENTITY, by="state"), "{{state}}"),),
                    stacked=True,
                    text="ready = a receiver could have it now; waiting_retry = its next message waits for its delay.",
                ),
                Panel(
                    "Time until a session is taken",
                    tuple(
                        (quantile(share, _WAIT), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)
                    ),
                    unit="s",
                    text="Of all queues: histograms have no label for the queue.",
                ),
                Panel(
                    "Accepts",
                    (
                        (
                            rate("lockstep_session_accepts_total", OF_ENTITY, by="result"),
                            "{{result}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
            ),
        ),
        (
            "Locks",
            (
                Panel(
                    "How long locks are held",
                    ((buckets("lockstep_session_lock_hold_seconds"), "{{le}}"),),
                    "heatmap",
                    "s",
                    12,
                ),
                Panel(
                    "How locks end",
                    (
                        (
                            rate("lockstep_locks_released_total", _OF_SESSIONS, by="cause"),
                            "{{cause}}",
                        ),
                    ),
                    unit="ops",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Locks that run out",
                    (
                        (
                            rate(
                                "lockstep_lock_expirations_total",
                                _OF_SESSIONS,
                                by="entity_namespace, entity",
                            ),
                            "{{entity_namespace}}/{{entity}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Renewals",
                    (
                        (
                            rate("lockstep_lock_renewals_total", _OF_SESSIONS, by="result"),
                            "{{result}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Sessions for each receiver",
                    (
                        (
                            f"{total('lockstep_entity_sessions', _RUNNABLE)}"
                            f" / clamp_min({total('lockstep_entity_receivers', OF_ENTITY)}, 1)",
                            "sessions",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Order and state",
            (
                Panel(
                    "Deliveries out of order",
                    (("sum(lockstep_session_order_violations_total)", "messages"),),
                    "stat",
                    width=6,
                    red_above=1,
                    text="Found by samples; anything but 0 is a bug.",
                ),
                Panel(
                    "Deliveries recalled",
                    ((rate("lockstep_deliveries_recalled_total", OF_ENTITY), "messages"),),
                    unit="ops",
                    width=9,
                ),
                Panel(
                    "States cleared by others",
                    (
                        (
                            rate("lockstep_session_states_cleared_total", OF_ENTITY, by="cause"),
                            "{{cause}}",
                        ),
                    ),
                    unit="ops",
                    width=9,
                ),
            ),
        ),
    ),
    VARIABLES,
    "lockstep_entity_receivers",
)
