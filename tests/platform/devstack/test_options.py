import base64
import json
import stat
from pathlib import Path

import pytest

from devstack.errors import InvalidEnvironment
from devstack.options import StackOptions, load_or_create_secrets, read_options, stack_environment, system_variables

FACTS = {"BASE_URL": "http://127.0.0.1:8000", "DATABASE_URL": "postgresql://embedded"}
KEPT = {"SECRET_KEY": "kept", "ENCRYPTION_KEYS": "k1:kept"}


@pytest.mark.parametrize(
    ("environment", "wishes"),
    [
        ({}, StackOptions(None, external_servers=False)),
        ({"PORT": "9000"}, StackOptions(9000, external_servers=False)),
        ({"DATABASE_URL": "postgresql://a", "REDIS_URL": "redis://b"}, StackOptions(None, external_servers=True)),
        ({"DATABASE_URL_FILE": "/run/a", "REDIS_URL": "redis://b"}, StackOptions(None, external_servers=True)),
    ],
)
def test_options_are_read_from_the_environment(environment: dict[str, str], wishes: StackOptions) -> None:
    assert read_options(environment) == wishes


@pytest.mark.parametrize(
    ("name", "missing"),
    [("DATABASE_URL", "REDIS_URL"), ("REDIS_URL", "DATABASE_URL"), ("REDIS_URL_FILE", "DATABASE_URL")],
)
def test_one_of_the_two_server_urls_alone_is_an_error(name: str, missing: str) -> None:
    with pytest.raises(InvalidEnvironment, match=f"{name.removesuffix('_FILE')} is set and {missing} is not. Set both"):
        read_options({name: "x"})


def test_an_invalid_port_is_an_error() -> None:
    with pytest.raises(InvalidEnvironment, match="PORT must be a number from 1 to 65535, got 'http'"):
        read_options({"PORT": "http"})


def test_programs_get_addresses_secrets_and_settings_for_a_laptop() -> None:
    environment = stack_environment({"HOME": "/h"}, KEPT, FACTS)

    assert environment == {
        "HOME": "/h",
        **FACTS,
        **KEPT,
        "DEBUG": "true",
        "LOG_FORMAT": "console",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "WEBHOOK_ALLOWED_PORTS": "0",
    }


def test_inherited_variables_override_defaults() -> None:
    given = {"DEBUG": "false", "SECRET_KEY": "own", "ENCRYPTION_KEYS_FILE": "/run/keys", "BASE_URL": "https://tunnel"}

    environment = stack_environment(given, KEPT, FACTS)

    assert environment.items() >= given.items()
    assert "ENCRYPTION_KEYS" not in environment, "with its file, it would contradict itself"
    assert environment["DATABASE_URL"] == FACTS["DATABASE_URL"]


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"

    first = load_or_create_secrets(path)

    assert load_or_create_secrets(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key_id, _, key = first["ENCRYPTION_KEYS"].partition(":")
    assert (key_id, len(base64.b64decode(key))) == ("k1", 32)
    assert len(first["SECRET_KEY"]) >= 50


def test_keys_added_by_hand_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"ENCRYPTION_KEYS": "k2:new,k1:old"}))

    assert load_or_create_secrets(path)["ENCRYPTION_KEYS"] == "k2:new,k1:old"
    assert load_or_create_secrets(path)["SECRET_KEY"] == load_or_create_secrets(path)["SECRET_KEY"]


def test_an_unreadable_secrets_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text("{")

    with pytest.raises(InvalidEnvironment, match=f"{path} cannot be read"):
        load_or_create_secrets(path)

    assert path.read_text() == "{"


def test_a_demo_inherits_no_settings() -> None:
    inherited = {"PATH": "/bin", "LC_CTYPE": "C", "OPENAI_API_KEY": "sk-real", "DATABASE_URL_FILE": "/run/db"}

    assert system_variables(inherited) == {"PATH": "/bin", "LC_CTYPE": "C"}
