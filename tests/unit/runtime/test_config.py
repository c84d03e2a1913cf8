"""Settings: what wins, what is refused and how clearly, and what is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from lockstep.core.errors import InvalidRequest
from lockstep.runtime.cluster_config import ClusterConfig
from lockstep.runtime.config import LimitsConfig, ServerConfig, load_config, render_config


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOCKSTEP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lockstep.toml"
    path.write_text("port = 1001\npartitions = 4\n[limits]\nqueues_max = 11\nwaiters_max = 12\n")
    return path


def refused(path: Path | None = None, /, **overrides: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        load_config(path, overrides)
    return error.value


def test_nothing_given_means_the_defaults() -> None:
    config = load_config(None, {})

    assert config.model_dump() == ServerConfig().model_dump()
    assert (config.host, config.port, config.store, config.admin_port) == (
        "127.0.0.1",
        7700,
        "sqlite",
        None,
    )
    assert config.limits.response_bytes_max == 3_670_016
    assert config.source_of("port") == "default"


def test_flag_wins_over_environment_over_file_over_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_PORT", "1002")
    monkeypatch.setenv("LOCKSTEP_PARTITIONS", "5")

    config = load_config(file, {"port": 1003})

    assert (config.port, config.source_of("port")) == (1003, "flag")
    assert (config.partitions, config.source_of("partitions")) == (
        5,
        "environment LOCKSTEP_PARTITIONS",
    )
    assert (config.limits.queues_max, config.source_of("limits.queues_max")) == (11, f"file {file}")
    assert config.source_of("host") == "default"


def test_sources_may_each_set_a_part_of_a_section(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_LIMITS__WAITERS_MAX", "13")

    config = load_config(file, {"limits.receive_messages_max": 14})

    limits = config.limits
    assert (limits.queues_max, limits.waiters_max, limits.receive_messages_max) == (11, 13, 14)
    assert config.source_of("limits.waiters_max") == "environment LOCKSTEP_LIMITS__WAITERS_MAX"


def test_section_may_come_as_json_in_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_LIMITS", '{"queues_max": 15}')

    assert load_config(None, {}).limits.queues_max == 15


def test_file_may_be_named_by_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_CONFIG", str(file))

    assert load_config(None, {}).port == 1001


def test_flag_that_was_not_given_changes_nothing(file: Path) -> None:
    assert load_config(file, {"port": None}).port == 1001


@pytest.mark.parametrize("key", ["admin_port", "health_port", "metrics_port"])
def test_port_that_is_off_is_none(key: str) -> None:
    assert getattr(load_config(None, {key: "off"}), key) is None


def test_settings_made_by_hand_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PORT", "1002")

    assert ServerConfig(store="memory").port == 7700


def test_settings_do_not_change_once_made() -> None:
    config = ServerConfig()

    with pytest.raises(ValidationError):
        config.port = 1  # type: ignore[misc] # that it is read-only is the point


def test_unknown_key_of_a_file_is_refused_with_near_ones(tmp_path: Path) -> None:
    path = tmp_path / "lockstep.toml"
    path.write_text("queues_max = 3\n")

    error = refused(path)

    assert "did you mean limits.queues_max" in error.message
    assert error.details["key"] == "queues_max"
    assert error.details["source"] == f"file {path}"


@pytest.mark.parametrize(
    ("name", "near"),
    [("LOCKSTEP_PROT", "port"), ("LOCKSTEP_LIMITS__QUEUE_MAX", "limits.queues_max")],
)
def test_unknown_variable_is_refused_with_near_ones(
    name: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")

    error = refused()

    assert name in error.message
    assert near in error.message


def test_unknown_flag_without_a_near_one_is_refused() -> None:
    assert "no setting has a name like it" in refused(xyzzy=1).message


def test_all_unknown_keys_are_named_at_once() -> None:
    assert {"xyzzy", "prot"} <= set(refused(xyzzy=1, prot=2).message.replace("\n", " ").split())


def test_section_given_as_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it is a section" in refused(limits=5).message


def test_section_variable_that_is_not_json_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_LIMITS", "{")

    assert "not JSON" in refused().message


def test_variables_of_the_client_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_SERVER", "localhost:1")
    monkeypatch.setenv("LOCKSTEP_NAMESPACE", "n")

    assert load_config(None, {}).port == 7700


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LOCKSTEP_PORT", "tcp://10.0.0.1:7700"),
        ("LOCKSTEP_PORT_7700_TCP", "tcp://10.0.0.1:7700"),
        ("LOCKSTEP_PORT_7700_TCP_ADDR", "10.0.0.1"),
        ("LOCKSTEP_SERVICE_HOST", "10.0.0.1"),
        ("LOCKSTEP_SERVICE_PORT_GRPC", "7700"),
        ("LOCKSTEP_HEADLESS_SERVICE_PORT", "7700"),
    ],
)
def test_variables_that_kubernetes_makes_for_a_service_are_not_settings(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)

    assert load_config(None, {}).model_dump() == ServerConfig().model_dump()


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("port", 70_000, "a whole number from 0 to 65535"),
        ("port", True, "a whole number from 0 to 65535"),
        ("admin_port", "on", 'a whole number from 0 to 65535 or "off"'),
        ("metrics_port", True, 'a whole number from 0 to 65535 or "off"'),
        ("partitions", 0, "a whole number from 1 to 4096"),
        ("store", "postgres", '"sqlite" or "memory"'),
        ("log_level", "loud", '"debug" or "info" or "warning" or "error"'),
        ("host", "", "a text that is not empty"),
        ("data_dir", 5, "a path"),
        ("limits.message_size_max_kib", 102_401, "a whole number from 1 to 102400"),
        ("limits.request_retention_ms", 599_999, "a whole number from 600000 to 86400000"),
    ],
)
def test_value_out_of_range_is_refused_with_key_value_range_and_source(
    key: str, value: object, allowed: str
) -> None:
    error = refused(**{key: value})

    expected = {"key": key, "value": repr(value), "allowed": allowed, "source": "flag"}
    assert error.details == expected
    assert all(one in error.message for one in expected.values())


def test_all_refused_values_are_named_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PARTITIONS", "many")

    error = refused(file, port=-1)

    assert len(error.message.splitlines()) == 2
    assert "LOCKSTEP_PARTITIONS" in error.message


def test_two_services_on_one_port_are_refused() -> None:
    error = refused(health_port=7700)

    assert error.message == "health_port = 7700 (from flag) is not allowed: the same port as port."
    assert error.details["key"] == "health_port"


def test_port_of_a_default_that_another_took_is_refused_with_its_value() -> None:
    error = refused(port=7702)

    assert error.details["key"] == "health_port"
    assert error.details["value"] == "7702"
    assert error.details["source"] == "default"


def test_any_free_port_may_be_asked_for_twice() -> None:
    config = load_config(None, {"port": 0, "metrics_port": 0, "health_port": 0})

    assert config.port == config.metrics_port == config.health_port == 0


def test_inbox_too_small_for_one_message_is_refused() -> None:
    error = refused(**{"limits.inbox_bytes_max": 2_000_000})

    assert error.details["key"] == "limits.inbox_bytes_max"
    assert "at least one message" in error.message


def test_missing_file_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.toml")

    assert "none.toml cannot be read" in error.message


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lockstep.toml"
    path.write_bytes(b"\xff\xfe")

    assert "cannot be read" in refused(path).message


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lockstep.toml"
    path.write_text("port: 7700\n")

    assert "is not TOML" in refused(path).message


def test_data_goes_below_the_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/share")

    assert load_config(None, {}).data_dir == Path("/srv/share/lockstep")


@pytest.mark.parametrize("data_home", ["", "relative"])
def test_data_goes_below_the_home_without_a_usable_data_home(
    data_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", data_home)
    monkeypatch.setenv("HOME", "/people/someone")

    assert load_config(None, {}).data_dir == Path("/people/someone/.local/share/lockstep")


def test_data_goes_beside_the_process_of_a_user_without_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)

    assert load_config(None, {}).data_dir == Path("data")


def test_tilde_in_the_data_directory_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/someone")

    assert load_config(None, {"data_dir": "~/queues"}).data_dir == Path("/people/someone/queues")


def test_shown_configuration_can_be_loaded_again(file: Path, tmp_path: Path) -> None:
    config = load_config(file, {"metrics_port": "off", "data_dir": 'a "quoted" path'})
    shown = tmp_path / "shown.toml"
    shown.write_text(render_config(config))

    again = load_config(shown, {})

    assert again.model_dump() == config.model_dump()


def test_shown_configuration_names_the_source_of_each_setting(file: Path) -> None:
    lines = render_config(load_config(file, {"store": "memory"})).splitlines()

    sources = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in lines if " = " in line}
    assert sources["store"] == "flag"
    assert sources["port"] == sources["queues_max"] == f"file {file}"
    assert sources["host"] == "default"
    sections = (LimitsConfig, ClusterConfig)
    in_sections = sum(len(section.model_fields) for section in sections)
    assert len(sources) == len(ServerConfig.model_fields) - len(sections) + in_sections


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_CLUSTER__POSTGRES_DSNS", "postgresql://me:hidden@db/x; host=db2")
    config = load_config(None, {"cluster.etcd_password": "hidden"})

    assert "hidden" not in render_config(config) + config.model_dump_json() + repr(config)
    assert config.cluster.dsns == ("postgresql://me:hidden@db/x", "host=db2")


def test_every_setting_says_what_it_is() -> None:
    for model in (ServerConfig, LimitsConfig, ClusterConfig):
        assert all(field.description for field in model.model_fields.values())
