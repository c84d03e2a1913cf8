"""Expressions that several dashboards share.

Here belong quantiles, sums and the like. Never here: panels.
"""

from __future__ import annotations

from typing import Final

RATE: Final = "$__rate_interval"
OF_ENTITY: Final = 'entity_namespace=~"$entity_namespace",entity=~"$entity"'
"""Matchers of what a reader chose on the dashboards of queues."""


def rate(metric: str, matchers: str = "", *, by: str = "") -> str:
    """Return the rate of a counter, summed; `by` = what the sum keeps."""
    keeps = f" by ({by})" if by else ""
    return f"sum{keeps} (rate({metric}{_braced(matchers)}[{RATE}]))"


def total(metric: str, matchers: str = "", *, by: str = "") -> str:
    """Return the sum of a gauge."""
    keeps = f" by ({by})" if by else ""
    return f"sum{keeps} ({metric}{_braced(matchers)})"


def quantile(share: float, histogram: str, matchers: str = "", *, by: str = "") -> str:
    """Return a quantile of a histogram."""
    keeps = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({keeps}) (rate({histogram}_bucket{_braced(matchers)}[{RATE}])))"


def buckets(histogram: str, matchers: str = "") -> str:
    """Return what a heatmap shows of a histogram."""
    return f"sum by (le) (increase({histogram}_bucket{_braced(matchers)}[{RATE}]))"


def _braced(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""
