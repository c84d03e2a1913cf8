"""How many messages each queue ever stored, as the metrics of a server say.

Here belongs reading one counter from the page of metrics. Never here: what follows from two of its values (`frames`).
The law: what cannot be read is an error with the address in it, never a zero.
"""

from __future__ import annotations

import urllib.request
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from lockstep.core.errors import Unavailable

_FAMILY: Final = "lockstep_messages_enqueued"
_SAMPLE: Final = "lockstep_messages_enqueued_total"
# A scheduled message is stored when it is sent; that it becomes active makes it no second one.
_STORED_BEFORE: Final = "schedule"
_READ_S: Final = 5


def read(address: str, namespace: str) -> Mapping[str, int]:
    """Return how many messages each queue of a namespace stored since the server knows it.

    Args:
        address: Where the server serves its metrics, `host:port`.
        namespace: The broker namespace.

    Raises:
        Unavailable: The page cannot be read; the server may be away, or serve its metrics elsewhere.
    """
    url = f"http://{address}/metrics/entities"
    try:
        with urllib.request.urlopen(url, timeout=_READ_S) as page:
            return parse(page.read().decode(), namespace)
    except (OSError, ValueError, HTTPException) as error:
        raise Unavailable(
            f"The metrics at {url} cannot be read: {error}. Give the metrics_port of the server.",
            details={"address": address},
        ) from error


def parse(page: str, namespace: str) -> Mapping[str, int]:
    """Return how many messages each queue of a namespace stored, as a page of metrics says.

    Raises:
        ValueError: It is no page of metrics.
    """
    stored: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        if family.name != _FAMILY:
            continue
        for sample in family.samples:
            labels = sample.labels
            if (
                sample.name == _SAMPLE
                and labels.get("entity_namespace") == namespace
                and labels.get("origin") != _STORED_BEFORE
            ):
                stored[labels.get("entity", "")] += round(sample.value)
    return stored
