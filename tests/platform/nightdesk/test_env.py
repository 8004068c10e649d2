"""Reading environment variables, and errors that name the invalid one."""

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from nightdesk import env


@pytest.fixture(autouse=True)
def _what_was_asked_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "READ_VARIABLES", {})


@pytest.mark.parametrize(("value", "read"), [("true", True), ("False", False), ("TRUE", True), ("", True)])
def test_a_flag_is_true_or_false(monkeypatch: pytest.MonkeyPatch, value: str, read: bool) -> None:
    monkeypatch.setenv("A_FLAG", value)

    assert env.flag("A_FLAG", True) is read


@pytest.mark.parametrize("value", ["1", "yes", "on", "tru"])
def test_another_value_of_a_flag_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("A_FLAG", value)

    with pytest.raises(ImproperlyConfigured, match="A_FLAG must be 'true' or 'false'"):
        env.flag("A_FLAG", True)


@pytest.mark.parametrize("value", ["-1", "0", "many", "1.5", "1e3", "٣"])
def test_an_invalid_or_too_small_number_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("A_NUMBER", value)

    with pytest.raises(ImproperlyConfigured, match="A_NUMBER"):
        env.number("A_NUMBER", 5, at_least=1)


def test_a_secret_is_read_from_the_file_that_name_file_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("rosebud\n")
    monkeypatch.setenv("A_SECRET_FILE", str(file))

    assert env.secret("A_SECRET", "default") == "rosebud"


def test_a_secret_that_is_set_twice_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("A_SECRET", "rosebud")

    with pytest.raises(ImproperlyConfigured, match="set one") as refused:
        env.secret("A_SECRET")
    assert "rosebud" not in str(refused.value)


def test_a_missing_secret_file_is_reported_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "nothing"))

    with pytest.raises(ImproperlyConfigured, match=r"A_SECRET_FILE names .*nothing"):
        env.secret("A_SECRET")


def test_words_are_split_and_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_WORDS", " a, b,,c ")

    assert env.words("SOME_WORDS") == ["a", "b", "c"]


def test_a_choice_is_one_of_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_CHOICE", "xml")

    with pytest.raises(ImproperlyConfigured, match="json, console"):
        env.choice("A_CHOICE", "json", ("json", "console"))


def test_a_database_url_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB", "postgresql://nina:p%40ss@db.example:6432/desk?sslmode=require")

    assert env.database("DB", "") == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "desk",
        "USER": "nina",
        "PASSWORD": "p@ss",
        "HOST": "db.example",
        "PORT": "6432",
        "OPTIONS": {"sslmode": "require"},
    }


@pytest.mark.parametrize("address", ["mysql://a@b/c", "postgresql://host", "desk"])
def test_an_invalid_database_url_is_an_error_without_its_password(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("DB", address)

    with pytest.raises(ImproperlyConfigured, match="DB must look like postgresql://"):
        env.database("DB", "")


def test_variables_that_were_read_are_recorded_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_NUMBER", "7")
    env.number("A_NUMBER", 5)
    env.words("SOME_WORDS", "a,b")

    wanted: dict[str, Any] = {"A_NUMBER": "5", "SOME_WORDS": "a,b"}
    assert wanted == env.READ_VARIABLES


def test_a_variable_under_its_old_name_is_refused_with_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    env.refuse_renamed({"LIVE_WITHOUT_REDIS": "LIVE_FAIL_MODE"})
    monkeypatch.setenv("LIVE_WITHOUT_REDIS", "closed")

    with pytest.raises(ImproperlyConfigured, match="LIVE_WITHOUT_REDIS to LIVE_FAIL_MODE"):
        env.refuse_renamed({"LIVE_WITHOUT_REDIS": "LIVE_FAIL_MODE", "SOCKET_STREAMS": "WEBSOCKET_MAX_STREAMS"})


def test_a_command_adopts_the_variables_of_the_local_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {})
    (tmp_path / "environment.json").write_text('{"DATABASE_URL": "postgresql://local/desk", "BASE_URL": "http://x"}')

    env.adopt_local_stack(tmp_path / "environment.json")

    assert (env.text("DATABASE_URL"), env.text("BASE_URL")) == ("postgresql://local/desk", "http://x")


def test_database_url_overrides_the_local_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"DATABASE_URL": "postgresql://mine/desk"})
    (tmp_path / "environment.json").write_text('{"DATABASE_URL": "postgresql://local/desk"}')

    env.adopt_local_stack(tmp_path / "environment.json")
    env.adopt_local_stack(tmp_path / "nothing.json")

    assert env.text("DATABASE_URL") == "postgresql://mine/desk"
