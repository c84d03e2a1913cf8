"""The configuration of a server: one place for every setting, wherever it comes from.

Here belong the settings with their units, ranges and defaults, and how flags, environment and file
are laid over each other. Never here: what a setting does, or the definition of an entity. The law:
flags win over the environment, that over the file, that over the defaults; a key that nobody knows
is refused, because a setting that is silently ignored is found too late.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lockstep.core.errors import InvalidRequest
from lockstep.runtime.cluster_config import ClusterConfig

ENVIRONMENT_PREFIX = "LOCKSTEP_"
CONFIG_VARIABLE = "LOCKSTEP_CONFIG"
# Variables with our prefix that say something to the command line's client, not to a server.
CLIENT_VARIABLES = frozenset({"LOCKSTEP_SERVER", "LOCKSTEP_NAMESPACE"})

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_HOUR_MS = 3_600_000
_OFF = "off"
_NOT_SHOWN = "(not shown)"


def _refuse_bool(value: object) -> object:
    """Keep `port = true` from meaning port 1."""
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")  # noqa: TRY004 - what pydantic expects
    return value


def _off_as_none(value: object) -> object:
    """Read "off" as None: neither TOML nor an environment variable can say None."""
    return None if value == _OFF else _refuse_bool(value)


def _range(low: int, high: int, description: str) -> object:
    """Bound a number, both ends included, and say what it is."""
    return Field(ge=low, le=high, description=description)


_Number = Annotated[int, BeforeValidator(_refuse_bool)]
_Port = Annotated[_Number, Field(ge=0, le=65535)]
_PortOrOff = Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_off_as_none)]


class LimitsConfig(BaseModel):
    """What one server accepts, keeps and caches at most (LIM-1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    message_size_max_kib: Annotated[
        _Number,
        _range(1, 102_400, "KiB that an entity may allow for one message with its properties."),
    ] = 16_384
    receive_messages_max: Annotated[_Number, _range(1, 65_536, "Messages in one receive.")] = 4096
    response_bytes_max: Annotated[
        _Number,
        _range(
            65_536,
            2_000_000_000,
            "Bytes of messages in one response; a single larger message still comes, alone.",
        ),
    ] = 3_670_016
    send_batch_messages_max: Annotated[_Number, _range(1, 65_536, "Messages in one send.")] = 4096
    requests_per_client_max: Annotated[
        _Number,
        _range(1, 1_000_000, "Results kept for one client in one partition, to answer a repeat."),
    ] = 1024
    request_retention_ms: Annotated[
        _Number,
        _range(
            600_000,
            24 * _HOUR_MS,
            "Milliseconds that a result is kept at least, to answer a repeat.",
        ),
    ] = 600_000
    inbox_commands_max: Annotated[
        _Number,
        _range(1, 1_000_000, "Commands that wait for one partition; more are refused as busy."),
    ] = 10_000
    inbox_bytes_max: Annotated[
        _Number, _range(_MIB, 64 * _GIB, "Bytes of the commands that wait for one partition.")
    ] = 256 * _MIB
    waiters_max: Annotated[
        _Number, _range(1, 1_000_000, "Receives and accepts that wait on one entity.")
    ] = 5000
    body_cache_bytes_max: Annotated[
        _Number, _range(0, 1024 * _GIB, "Bytes of recent message bodies kept in memory; 0 = none.")
    ] = 256 * _MIB
    queues_max: Annotated[_Number, _range(1, 1_000_000, "Entities in the installation.")] = 10_000
    concurrent_requests_max: Annotated[
        _Number,
        _range(
            1, 1_000_000, "Calls that are open at one time, waiting ones too; more are refused."
        ),
    ] = 20_000

    @model_validator(mode="after")
    def _inbox_holds_a_message(self) -> Self:
        if self.inbox_bytes_max < self.message_size_max_kib * 1024:
            raise PydanticCustomError(
                "inbox_too_small",
                "it must hold at least one message of limits.message_size_max_kib",
                {"key": "limits.inbox_bytes_max"},
            )
        return self


def default_data_dir() -> Path:
    """Return where data goes when nobody says so: `$XDG_DATA_HOME/lockstep`.

    Without that variable, or with a relative path in it, which the rule tells to ignore, it is
    `~/.local/share/lockstep` (XDG Base Directory Specification); without a home, `./data`.
    """
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if base.is_absolute():
        return base / "lockstep"
    try:
        return Path.home() / ".local" / "share" / "lockstep"
    except RuntimeError:  # a container whose user has no home
        return Path("data")


def _expand_home(value: object) -> object:
    return os.path.expanduser(value) if isinstance(value, str) else value


class ServerConfig(BaseSettings):
    """All settings of `lockstep serve`. Made by hand it reads nothing; `load_config` reads the rest."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        validate_default=False,
    )

    host: Annotated[
        str,
        Field(min_length=1, description="Address to listen on; 0.0.0.0 or :: = every interface."),
    ] = "127.0.0.1"
    port: Annotated[_Port, Field(description="Port of data and admin calls; 0 = any free one.")] = (
        7700
    )
    admin_port: Annotated[
        _PortOrOff,
        Field(description="Port of the admin service alone, by custom 7701; 0 = any, off = none."),
    ] = None
    health_port: Annotated[
        _PortOrOff,
        Field(description="Port of /healthz and /readyz over HTTP; 0 = any, off = none."),
    ] = 7702
    metrics_port: Annotated[
        _PortOrOff,
        Field(description="Port of /metrics and /metrics/entities; 0 = any, off = none."),
    ] = 9464
    metrics_entities_max: Annotated[
        _Number,
        _range(1, 100_000, "Entities with series of their own; the rest is folded into __other__."),
    ] = 2000
    data_dir: Annotated[
        Path, BeforeValidator(_expand_home), Field(description="Directory of the store's files.")
    ] = Field(default_factory=default_data_dir)
    store: Annotated[
        Literal["sqlite", "memory"],
        Field(description="Where messages are kept; memory forgets them at exit."),
    ] = "sqlite"
    partitions: Annotated[_Number, _range(1, 4096, "Partitions; fixed when the store is made.")] = 1
    log_format: Annotated[Literal["json", "console"], Field(description="How logs look.")] = (
        "console"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="The least severe events that are logged."),
    ] = "info"
    shutdown_grace_ms: Annotated[
        _Number, _range(0, _HOUR_MS, "Milliseconds that an orderly stop may take.")
    ] = 10_000
    lame_duck_ms: Annotated[
        _Number,
        _range(
            0,
            600_000,
            "Milliseconds that a stopping process serves on, not ready, so that load balancers notice.",
        ),
    ] = 0
    outage_grace_ms: Annotated[
        _Number, _range(0, _HOUR_MS, "Milliseconds that recorded locks outlive a restart at least.")
    ] = 10_000
    limits: Annotated[LimitsConfig, Field(description="What is accepted at most.")] = LimitsConfig()
    cluster: Annotated[ClusterConfig, Field(description="Where the parts of a cluster are.")] = (
        ClusterConfig()
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken: dict[int, str] = {}
        for key in ("port", "admin_port", "health_port", "metrics_port"):
            number = getattr(self, key)
            if number in taken:
                raise PydanticCustomError(
                    "port_taken", "the same port as {other}", {"key": key, "other": taken[number]}
                )
            if number:
                taken[number] = key
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - given by the base
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments only: `load_config` lays the sources over each other and remembers which won."""
        return (init_settings,)

    def source_of(self, key: str) -> str:
        """Return where the value of `key` (`port`, `limits.queues_max`) came from."""
        return self._sources.get(key, "default")


@dataclass(frozen=True, slots=True)
class _Layer:
    """The settings of one source: dotted key to raw value, and to what the source calls itself."""

    values: Mapping[str, object]
    sources: Mapping[str, str]


def load_config(path: Path | None, overrides: Mapping[str, object]) -> ServerConfig:
    """Lay flags over environment over file over defaults, and check the result.

    Args:
        path: The TOML file; None = the one that LOCKSTEP_CONFIG names, or no file.
        overrides: Flags, by key (`port`, `limits.queues_max`); a value of None = the flag was not
            given, the text "off" = the setting is off.

    Raises:
        InvalidRequest: A file cannot be read, a key is unknown, a value is not allowed. The message
            has one line for each, details have `key`, `value`, `allowed` and `source` of the first.
    """
    if path is None and os.environ.get(CONFIG_VARIABLE):
        path = Path(os.environ[CONFIG_VARIABLE])
    layers = [_environment_layer(), _flags_layer(overrides)]
    if path is not None:
        layers.insert(0, _file_layer(path))
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        values.update(layer.values)
        sources.update(layer.sources)
    _refuse_unknown(values, sources)
    try:
        config = ServerConfig.model_validate(_nested(values))
    except ValidationError as error:
        raise _refusal(error, values, sources) from error
    config._sources.update(sources)
    return config


def render_config(config: ServerConfig) -> str:
    """Return every setting with its value and, as a comment, its source: a TOML file that can be loaded."""
    lines = [(f"{key} = {_toml(getattr(config, key))}", key) for key in _top_keys()]
    for section in _sections():
        lines += [("", ""), (f"[{section}]", "")]
        values = getattr(config, section)
        for key in type(values).model_fields:
            lines.append((f"{key} = {_toml(getattr(values, key))}", f"{section}.{key}"))
    width = max(len(text) for text, _ in lines)
    rendered = [
        f"{text:{width}}  # {config.source_of(key)}" if key else text for text, key in lines
    ]
    return "\n".join(rendered) + "\n"


def _sections() -> dict[str, type[BaseModel]]:
    """Return the settings that hold settings."""
    return {"limits": LimitsConfig, "cluster": ClusterConfig}


def _top_keys() -> list[str]:
    return [key for key in ServerConfig.model_fields if key not in _sections()]


def _fields() -> dict[str, FieldInfo]:
    """Return every setting by its dotted key."""
    found = {key: ServerConfig.model_fields[key] for key in _top_keys()}
    for section, model in _sections().items():
        found.update({f"{section}.{key}": info for key, info in model.model_fields.items()})
    return found


def _file_layer(path: Path) -> _Layer:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"The configuration file {path} cannot be read: {reason}."
        raise InvalidRequest(message, details={"source": f"file {path}"}) from error
    try:
        values = dict(_flat(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        message = f"The configuration file {path} is not TOML: {error}."
        raise InvalidRequest(message, details={"source": f"file {path}"}) from error
    return _Layer(values, dict.fromkeys(values, f"file {path}"))


def _environment_layer() -> _Layer:
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    try:
        known = EnvSettingsSource(ServerConfig)()
    except SettingsError as error:
        message = f"An environment variable of a section is not JSON: {error}."
        raise InvalidRequest(message, details={"source": "environment"}) from error
    for key, value in _flat(known):
        values[key], sources[key] = value, f"environment {_variable(key)}"
    for name, text in os.environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in {CONFIG_VARIABLE, *CLIENT_VARIABLES}:
            continue
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if _is_service_link(name, text):
            values.pop(key, None)
            sources.pop(key, None)
        elif key not in _sections() and key not in values:
            values[key], sources[key] = text, f"environment {name}"
    return _Layer(values, sources)


def _is_service_link(name: str, text: str) -> bool:
    """Tell a variable that Kubernetes makes for a Service called lockstep from a setting.

    It sets LOCKSTEP_PORT=tcp://…, LOCKSTEP_SERVICE_HOST and others in every pod of the namespace
    (Kubernetes documentation, "Discovering services").
    """
    words = name.removeprefix(ENVIRONMENT_PREFIX).split("_")
    of_port = "PORT" in words and (
        text.startswith(("tcp://", "udp://", "sctp://")) or "TCP" in words
    )
    return of_port or ("SERVICE" in words and ("HOST" in words or "PORT" in words))


def _flags_layer(overrides: Mapping[str, object]) -> _Layer:
    values = {key: value for key, value in _flat(overrides) if value is not None}
    return _Layer(values, dict.fromkeys(values, "flag"))


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted keys and values; a table that is no section is a value like any other."""
    for key, value in values.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _flat(value, f"{key}.")
        else:
            yield prefix + key, value


def _nested(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values as the model wants them; all keys are known."""
    top: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            sections.setdefault(section, {})[name] = value
        else:
            top[key] = value
    return top | sections


def _refuse_unknown(values: Mapping[str, object], sources: Mapping[str, str]) -> None:
    known = _fields()
    lines = []
    for key in values:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "no setting has a name like it."
        if key in _sections():
            hint = f"it is a section: its settings are {key}.<name>."
        lines.append((key, f"{key} (from {sources[key]}) is not a setting; {hint}"))
    if lines:
        key = lines[0][0]
        details = {"key": key, "value": _shown(values[key]), "source": sources[key]}
        details["allowed"] = ", ".join(known)
        raise InvalidRequest("\n".join(line for _, line in lines), details=details)


def _refusal(
    error: ValidationError, values: Mapping[str, object], sources: Mapping[str, str]
) -> InvalidRequest:
    lines = []
    details: dict[str, str] = {}
    for one in error.errors(include_url=False):
        key = str(one.get("ctx", {}).get("key") or ".".join(map(str, one["loc"])))
        source = sources.get(key, "default")
        field = _fields()[key]
        seen = _shown(values.get(key, field.get_default(call_default_factory=False)))
        allowed = one["msg"] if "key" in one.get("ctx", {}) else _allowed(field)
        if "key" in one.get("ctx", {}):
            lines.append(f"{key} = {seen} (from {source}) is not allowed: {one['msg']}.")
        else:
            lines.append(f"{key} = {seen} (from {source}) is not allowed; allowed is {allowed}.")
        details = details or {"key": key, "value": seen, "allowed": allowed, "source": source}
    return InvalidRequest("\n".join(lines), details=details)


def _allowed(field: FieldInfo) -> str:
    """Say in words which values a setting takes."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(json.dumps(one) for one in get_args(field.annotation))
    if field.annotation is Path:
        return "a path"
    if field.annotation in (str, SecretStr):
        return "a text that is not empty"
    low, high = _bound(field, "ge"), _bound(field, "le")
    off = f' or "{_OFF}"' if type(None) in get_args(field.annotation) else ""
    return f"a whole number from {low} to {high}{off}"


def _bound(field: FieldInfo, name: str) -> object:
    """Return a bound of a setting's range; pydantic keeps each in an object of its own."""
    return next(getattr(one, name) for one in field.metadata if hasattr(one, name))


def _shown(value: object) -> str:
    return repr(value)[:100]


def _toml(value: object) -> str:
    if value is None:
        return json.dumps(_OFF)
    if isinstance(value, SecretStr):
        return json.dumps(_NOT_SHOWN if value.get_secret_value() else "")
    return str(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)
