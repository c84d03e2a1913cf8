"""Which labels metrics may have.

Here belongs the allow-list. Never here: which metric has which of them (`docs/metrics.md`). The law: a label is here
only if all its values are known before the first client comes, but for the names of entities.
"""

from __future__ import annotations

ENTITY = frozenset({"entity_namespace", "entity", "entity_type"})
# Closed lists of ours.
CLOSED = frozenset({
    "origin", "attempt", "outcome", "reason", "direction", "kind", "result", "cause", "sessions", "sub_queue", "state",
    "method", "code", "end", "op", "error_class", "component",
})  # fmt: skip
BUILD = frozenset({"version", "commit", "python"})
# Of the Prometheus client: buckets of histograms, generations of the garbage collector, what Python runs.
CLIENT = frozenset({"le", "generation"})
ALLOWED = ENTITY | CLOSED | BUILD | CLIENT
