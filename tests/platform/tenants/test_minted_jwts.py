"""JWTs of the desk: what it minted for a use is read for that use, and nothing else ever is."""

import base64
import hmac
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from pytest_django import Settings

from core import clock
from core.crypto import new_key, parse_keyring
from core.fields import keyring
from tenants import minted_jwts
from tenants.errors import ExpiredCredentials, InvalidCredentials
from tenants.minted_jwts import JwtPurpose

CLAIMS = {"aud": "stream", "sub": "stm_1"}


def mint(use: JwtPurpose = JwtPurpose.TICKET, seconds: int = 60) -> str:
    return minted_jwts.mint(use, CLAIMS, seconds=seconds).text


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def own_key(use: JwtPurpose = JwtPurpose.TICKET) -> bytes:
    return next(iter(keyring().derive(use.label).values()))


def forged(header: dict[str, Any], key: bytes, digest: str = "sha256") -> str:
    content = f"{part(header)}.{part({**CLAIMS, 'exp': clock.unix_seconds() + 60})}"
    return f"{content}.{part(hmac.digest(key, content.encode(), digest))}"


@pytest.mark.parametrize("use", list(JwtPurpose))
def test_a_minted_jwt_is_verified(use: JwtPurpose) -> None:
    with clock.frozen(clock.now()):
        made = minted_jwts.mint(use, {**CLAIMS, "origin": None}, seconds=60)

        assert minted_jwts.is_minted(use, made.text)
        assert minted_jwts.verify(use, made.text) == {
            **CLAIMS,
            "iat": clock.unix_seconds(),
            "exp": clock.unix_seconds() + 60,
        }
        assert made.expires_at == clock.unix_seconds() + 60


def test_a_minted_jwt_is_readable_by_other_libraries() -> None:
    claims = jwt.decode(mint(), own_key(), algorithms=["HS256"], audience="stream")

    assert claims["sub"] == "stm_1"


def test_a_minted_jwt_is_not_in_its_repr() -> None:
    made = minted_jwts.mint(JwtPurpose.TICKET, CLAIMS, seconds=60)

    assert made.text not in repr(made)


def test_a_jwt_with_one_changed_character_is_invalid() -> None:
    text = mint()

    for place, letter in enumerate(text):
        changed = text[:place] + ("A" if letter != "A" else "B") + text[place + 1 :]
        with pytest.raises(InvalidCredentials):
            minted_jwts.verify(JwtPurpose.TICKET, changed)


def test_a_jwt_of_another_purpose_or_issuer_is_invalid() -> None:
    header = {"alg": "HS256", "typ": JwtPurpose.TICKET.value, "kid": keyring().active}
    text = mint()
    content, _, signature = text.rpartition(".")
    hostile = [
        mint(JwtPurpose.TOKEN),
        forged({**header, "typ": JwtPurpose.TOKEN.value}, own_key()),
        forged(header, own_key(JwtPurpose.TOKEN)),
        forged(header, next(iter(keyring().keys.values()))),
        forged(header, b""),
        forged({**header, "alg": "none"}, own_key()),
        forged({**header, "alg": "HS512"}, own_key(), "sha512"),
        forged({**header, "alg": "RS256"}, own_key()),
        forged({**header, "kid": "another"}, own_key()),
        forged({**header, "kid": "../../dev/null"}, b""),
        forged({"alg": "HS256", "typ": "JWT"}, own_key()),
        forged({"typ": JwtPurpose.TICKET.value, "alg": "HS256", "kid": keyring().active}, own_key()),
        forged({**header, "crit": ["exp"]}, own_key()),
        part({**header, "alg": "none"}) + "." + content.partition(".")[2] + ".",
        content,
        content + ".",
        "." + content,
        text + ".",
        text + "." + signature,
        text + "=",
        " " + text,
        text.replace(".", ""),
        text + "\n",
        text[:-1] + "\xff",
        text[:-1] + "\ud800",
        text + "x" * 60_000,
        "..",
        "",
    ]

    for each in hostile:
        with pytest.raises(InvalidCredentials):
            minted_jwts.verify(JwtPurpose.TICKET, each)


def test_each_jwt_has_one_valid_spelling() -> None:
    """The last letter of a signature holds two bits that base64 ignores."""
    text = mint()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    accepted = []
    for letter in alphabet:
        try:
            minted_jwts.verify(JwtPurpose.TICKET, text[:-1] + letter)
        except InvalidCredentials:
            continue
        accepted.append(letter)

    assert accepted == [text[-1]]


@pytest.mark.parametrize(("seconds", "holds"), [(59, True), (60, False), (61, False)])
def test_a_jwt_expires_to_the_second(seconds: int, holds: bool) -> None:
    now = clock.now().replace(microsecond=0)
    with clock.frozen(now):
        text = mint()

    with clock.frozen(now + timedelta(seconds=seconds)):
        if holds:
            minted_jwts.verify(JwtPurpose.TICKET, text)
        else:
            with pytest.raises(ExpiredCredentials):
                minted_jwts.verify(JwtPurpose.TICKET, text)


def test_keys_are_rotated_with_an_overlap(settings: Settings) -> None:
    old, new = new_key(), new_key()
    settings.ENCRYPTION_KEYS = f"old:{old}"
    before = mint()

    settings.ENCRYPTION_KEYS = f"new:{new},old:{old}"
    after = mint()
    assert minted_jwts.verify(JwtPurpose.TICKET, before)["sub"] == minted_jwts.verify(JwtPurpose.TICKET, after)["sub"]
    assert jwt.get_unverified_header(after)["kid"] == "new"

    settings.ENCRYPTION_KEYS = f"new:{new}"
    minted_jwts.verify(JwtPurpose.TICKET, after)
    with pytest.raises(InvalidCredentials):
        minted_jwts.verify(JwtPurpose.TICKET, before)


def test_a_key_of_the_same_name_is_not_the_same_key(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = f"k:{new_key()}"
    text = mint()

    settings.ENCRYPTION_KEYS = f"k:{new_key()}"

    assert minted_jwts.is_minted(JwtPurpose.TICKET, text)
    with pytest.raises(InvalidCredentials):
        minted_jwts.verify(JwtPurpose.TICKET, text)


def test_every_purpose_has_its_own_keys() -> None:
    ring = parse_keyring(f"a:{new_key()},b:{new_key()}")
    keys = [key for use in JwtPurpose for key in ring.derive(use.label).values()]

    assert len(set(keys)) == len(keys) == 4
