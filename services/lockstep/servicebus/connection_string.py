"""Connection strings as Azure writes them, and what is used of them.

Here belongs reading one. Never here: connecting. The law: `Endpoint` may begin with `sb://` or `lockstep://`; keys and
signatures are read and not used, because this release knows no credentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SCHEMES: Final = ("sb://", "lockstep://")
_WITHOUT_EFFECT: Final = ("usedevelopmentemulator", "transporttype", "operationtimeout")
_BLANK: Final = "Connection string is either blank or malformed."


@dataclass(frozen=True, slots=True)
class ServiceBusConnectionStringProperties:
    """The parts of a connection string.

    Attributes:
        fully_qualified_namespace: The server: `host` or `host:port`.
        endpoint: The same as an address.
        entity_path: The only queue that may be used; None = any.
        shared_access_signature: Not used.
        shared_access_key_name: Not used.
        shared_access_key: Not used.
        broker_namespace: The broker namespace, which Azure does not have; None = `default`.
    """

    fully_qualified_namespace: str
    endpoint: str
    entity_path: str | None = None
    shared_access_signature: str | None = None
    shared_access_key_name: str | None = None
    shared_access_key: str | None = None
    broker_namespace: str | None = None


def parse_connection_string(conn_str: str) -> ServiceBusConnectionStringProperties:
    """Read `Endpoint=sb://host:port;Namespace=orders;EntityPath=queue`; the port is 7700 by default.

    Raises:
        ValueError: It is malformed, has no Endpoint, or a part that is unknown.
    """
    parts: dict[str, str] = {}
    for piece in conn_str.strip().rstrip(";").split(";"):
        key, separator, value = piece.partition("=")
        if not separator:
            raise ValueError(_BLANK)
        parts[key.strip().lower()] = value.strip()
    endpoint = parts.pop("endpoint", "")
    scheme = next((scheme for scheme in _SCHEMES if endpoint.lower().startswith(scheme)), None)
    if not endpoint:
        raise ValueError(_BLANK)
    if scheme is None:
        raise ValueError(f"Invalid Endpoint on the Connection String: {endpoint}; use sb://host.")
    host = endpoint[len(scheme) :].rstrip("/")
    properties = ServiceBusConnectionStringProperties(
        fully_qualified_namespace=host,
        endpoint=f"sb://{host}/",
        entity_path=parts.pop("entitypath", None),
        shared_access_signature=parts.pop("sharedaccesssignature", None),
        shared_access_key_name=parts.pop("sharedaccesskeyname", None),
        shared_access_key=parts.pop("sharedaccesskey", None),
        broker_namespace=parts.pop("namespace", None),
    )
    unknown = [key for key in parts if key not in _WITHOUT_EFFECT]
    if unknown:
        raise ValueError(f"Unknown part of the Connection String: {', '.join(unknown)}.")
    return properties
