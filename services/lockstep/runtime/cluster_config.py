"""The settings of the processes of a cluster.

Here belong the settings that a single node does not have. Never here: how flags, environment and file are laid over
each other (`config`). The law: texts that are empty mean that there is none.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


def _text(description: str) -> object:
    return Field(description=description)


class ClusterConfig(BaseModel):
    """Where the parts of a cluster are, for `lockstep owner` and `lockstep frontend`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, _text("Name of the cluster in etcd; the same for all its processes.")] = (
        "lockstep"
    )
    node: Annotated[
        str, _text("Name of this process, unique in the cluster; empty = the host's name.")
    ] = ""
    owner_host: Annotated[
        str, _text("Address that the owner service listens on, for front ends and other owners.")
    ] = "127.0.0.1"
    owner_port: Annotated[
        int, Field(ge=0, le=65535, description="Port of the owner service; 0 = any free one.")
    ] = 7710
    advertised_host: Annotated[
        str,
        _text("Host at which others reach the owner service; empty = owner_host."),
    ] = ""
    etcd_endpoints: Annotated[
        str, _text("host:port of each member of etcd, with commas between them.")
    ] = "127.0.0.1:2379"
    etcd_ca_file: Annotated[str, _text("Authorities that sign etcd's certificates; PEM.")] = ""
    etcd_certificate_file: Annotated[str, _text("Certificate of this process for etcd; PEM.")] = ""
    etcd_key_file: Annotated[str, _text("Private key of that certificate; PEM.")] = ""
    etcd_transport: Annotated[
        Literal["plain", "tls"], _text("How etcd is reached; with tls it must show a certificate.")
    ] = "plain"
    etcd_user: Annotated[str, _text("User of etcd; empty = none.")] = ""
    etcd_password: Annotated[SecretStr, _text("Password of that user.")] = SecretStr("")
    lease_ttl_ms: Annotated[
        int,
        Field(
            ge=2_000,
            le=60_000,
            description="Milliseconds after which a silent process has lost its partitions.",
        ),
    ] = 10_000
    postgres_dsns: Annotated[
        SecretStr,
        _text("Connection strings of PostgreSQL, one a shard, with semicolons between them."),
    ] = SecretStr("")
    postgres_schema: Annotated[str, _text("Schema of the tables in each database.")] = "lockstep"
    postgres_skew_max_ms: Annotated[
        int,
        Field(
            ge=100,
            le=600_000,
            description="Milliseconds by which an owner's clock may differ from a database's.",
        ),
    ] = 5_000
    postgres_silence_ms: Annotated[
        int,
        Field(
            ge=1_000,
            le=600_000,
            description="Milliseconds without an answer after which an owner leaves a database to others.",
        ),
    ] = 10_000
    postgres_call_timeout_ms: Annotated[
        int,
        Field(
            ge=500,
            le=600_000,
            description="Milliseconds that a commit or a load may take; then its connection is cut.",
        ),
    ] = 30_000
    postgres_open_timeout_ms: Annotated[
        int,
        Field(
            ge=1_000,
            le=3_600_000,
            description="Milliseconds that connecting and reading a whole partition may take.",
        ),
    ] = 300_000

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members of etcd."""
        return tuple(part.strip() for part in self.etcd_endpoints.split(",") if part.strip())

    @property
    def dsns(self) -> tuple[str, ...]:
        """The databases."""
        return tuple(
            part.strip()
            for part in self.postgres_dsns.get_secret_value().split(";")
            if part.strip()
        )
