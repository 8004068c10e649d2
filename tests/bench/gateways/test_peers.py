"""Which releases of the peers are never installed."""

from pathlib import Path

import pytest

from tests.bench.gateways.peers import LITELLM, Compromised, install_litellm, refuse_compromised


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8", "1.107", "1.107.0", "1.107.3"])
def test_a_compromised_release_is_refused_before_anything_is_touched(version: str, tmp_path: Path) -> None:
    with pytest.raises(Compromised, match=version):
        install_litellm(tmp_path, version)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [LITELLM, "1.82.6", "1.82.70", "1.106.10", "1.108.0"])
def test_others_are_not(version: str) -> None:
    refuse_compromised(version)
