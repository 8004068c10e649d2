import pytest

from tests.programs import NotInstalled, do_without

MISSING = NotInstalled("chromium", by="browser")


@pytest.mark.parametrize("said", ["", "false"])
def test_without_its_program_a_test_is_skipped_and_says_how_to_get_it(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", said)

    with pytest.raises(pytest.skip.Exception, match="chromium is not installed.*make browser"):
        do_without(MISSING)


def test_in_ci_a_missing_program_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="chromium is not installed.*make browser"):
        do_without(MISSING)
