"""Authentication: which credentials are accepted, and that an error reveals nothing to others."""

import base64
import gc
import hmac
import json
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import jwt
import pytest
from django.db import connection

from core import clock
from tenants import cached_lookups, minted_jwts
from tenants.authentication import (
    DECOY_SECRETS,
    AuthMethod,
    Identity,
    PresentedRequest,
    authenticate,
    purge_nonces,
    verify_credentials,
)
from tenants.credentials import NewSite, issue, revoke, rotate
from tenants.errors import (
    ConflictingCredentials,
    ExpiredCredentials,
    InvalidCredentials,
    MalformedCredentials,
    MissingCredentials,
    ReplayedRequest,
    StaleTimestamp,
    TenantError,
    Unauthenticated,
)
from tenants.grant import UNRESTRICTED, Grant
from tenants.minted_jwts import JwtPurpose
from tenants.models import Credential, CredentialKind, Site, UsedNonce
from tests.request_signing import bearer, signed, signed_legacy, token

BODY = b'{"kind": "chat"}'
TARGET = "/v1/jobs?a=1"


def ask(headers: dict[str, str], *, method: str = "POST", target: str = TARGET, body: bytes = BODY) -> Identity:
    return authenticate(
        PresentedRequest(method, target, {name.lower(): value for name, value in headers.items()}, body)
    )


def refusal(headers: dict[str, str], **how: Any) -> TenantError:
    with pytest.raises(Unauthenticated) as caught:
        ask(headers, **how)
    return caught.value


# Signed requests


def test_a_signed_request_is_authenticated(bakery: NewSite) -> None:
    identity = ask(signed(bakery, "POST", TARGET, BODY))

    assert identity == Identity(bakery.site, AuthMethod.SIGNED_REQUEST, bakery.signing_secret.credential.public_id)


def test_the_site_may_be_named_by_slug(bakery: NewSite) -> None:
    assert ask({**signed(bakery, "POST", TARGET, BODY), "X-Site-ID": "bakery"}).site == bakery.site


def test_every_live_secret_is_accepted_during_a_rotation(bakery: NewSite) -> None:
    new = rotate(bakery.site, CredentialKind.SIGNING_SECRET, timedelta(hours=1))
    cached_lookups.clear_caches()

    assert ask(signed(bakery, "POST", TARGET, BODY)).credential_id == bakery.signing_secret.credential.public_id
    assert ask(signed(bakery, "POST", TARGET, BODY, secret=new.secret)).credential_id == new.credential.public_id


@pytest.mark.parametrize(
    "how",
    [
        {"method": "GET"},
        {"target": "/v1/jobs"},
        {"target": "/v1/jobs?a=2"},
        {"body": BODY + b" "},
    ],
)
def test_a_signature_binds_method_path_query_and_body(bakery: NewSite, how: dict[str, Any]) -> None:
    assert type(refusal(signed(bakery, "POST", TARGET, BODY), **how)) is InvalidCredentials


@pytest.mark.parametrize(
    "changed",
    [
        {"X-Timestamp": "1"},
        {"X-Nonce": "another-nonce"},
        {"X-Signature": "v1=" + "0" * 64},
        {"X-Signature": "v1=\xff"},
        {"X-Signature": "0" * 64},
        {"X-Signature": "v2=abc"},
        {"X-Site-ID": "florist"},
        {"X-Site-ID": "nobody"},
        {"X-Site-ID": ""},
        {"X-Timestamp": ""},
        {"X-Nonce": ""},
    ],
)
def test_wrong_and_unknown_credentials_get_the_same_message(
    bakery: NewSite, florist: NewSite, changed: dict[str, str]
) -> None:
    error = refusal({**signed(bakery, "POST", TARGET, BODY), **changed})

    assert type(error) is InvalidCredentials
    assert str(error) == str(InvalidCredentials())
    assert UsedNonce.objects.count() == 0


@pytest.mark.parametrize(("seconds", "accepted"), [(-61, False), (-60, True), (60, True), (61, False)])
def test_the_timestamp_tolerance_is_sixty_seconds_in_both_directions(
    bakery: NewSite, seconds: int, accepted: bool
) -> None:
    now = clock.now()
    with clock.frozen(now):
        headers = signed(bakery, "POST", TARGET, BODY, timestamp=clock.unix_seconds() + seconds)
        if accepted:
            assert ask(headers).site == bakery.site
        else:
            assert type(refusal(headers)) is StaleTimestamp
            assert UsedNonce.objects.count() == 0


@pytest.mark.parametrize("timestamp", ["soon", "-5", "01795200000", "1e9", "1795200000.5", "9" * 13, "١٧٩٥٢٠٠٠٠٠"])
def test_a_malformed_timestamp_is_explained_to_a_holder_of_the_secret(bakery: NewSite, timestamp: str) -> None:
    assert "whole seconds" in str(refusal(signed(bakery, "POST", TARGET, BODY, timestamp=timestamp)))


def test_a_nonce_is_used_once(bakery: NewSite) -> None:
    headers = signed(bakery, "POST", TARGET, BODY)
    ask(headers)

    assert type(refusal(headers)) is ReplayedRequest
    ask(signed(bakery, "POST", TARGET, BODY))


def test_two_sites_may_use_the_same_nonce(bakery: NewSite, florist: NewSite) -> None:
    ask(signed(bakery, "POST", TARGET, BODY, nonce="the-same-nonce"))
    ask(signed(florist, "POST", TARGET, BODY, nonce="the-same-nonce"))


def test_a_request_with_a_wrong_signature_does_not_consume_the_nonce(bakery: NewSite) -> None:
    refusal(signed(bakery, "POST", TARGET, BODY, nonce="a-good-nonce", secret="wrong"))

    ask(signed(bakery, "POST", TARGET, BODY, nonce="a-good-nonce"))


@pytest.mark.parametrize("nonce", ["short", "x" * 129, "with space", "ünïcödë-nonce"])
def test_an_invalid_nonce_is_explained_to_a_holder_of_the_secret(bakery: NewSite, nonce: str) -> None:
    assert type(refusal(signed(bakery, "POST", TARGET, BODY, nonce=nonce))) is MalformedCredentials


@pytest.mark.django_db(transaction=True)
def test_one_of_many_concurrent_replays_is_authenticated(bakery: NewSite) -> None:
    headers = signed(bakery, "POST", TARGET, BODY)
    together = threading.Barrier(6)
    endings: list[type] = []

    def try_it() -> None:
        together.wait()
        try:
            endings.append(type(ask(headers)))
        except ReplayedRequest as error:
            endings.append(type(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ending.__name__ for ending in endings) == ["Identity"] + ["ReplayedRequest"] * 5


def test_only_nonces_that_can_no_longer_be_replayed_are_purged(bakery: NewSite) -> None:
    headers = signed(bakery, "POST", TARGET, BODY)
    ask(headers)
    ask(signed(bakery, "POST", TARGET, BODY, nonce="an-old-nonce"))
    newest = UsedNonce.objects.latest("id")
    UsedNonce.objects.filter(id=newest.id).update(used_at=clock.now() - timedelta(minutes=5, seconds=5))

    assert purge_nonces() == 1

    assert type(refusal(headers)) is ReplayedRequest


@pytest.mark.django_db(transaction=True)
def test_a_site_that_was_just_deleted_cannot_authenticate(bakery: NewSite) -> None:
    cached_lookups.find_site_secrets(bakery.site.public_id)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM tenants_credential")
        cursor.execute("DELETE FROM tenants_site")

    assert type(refusal(signed(bakery, "POST", TARGET, BODY))) is InvalidCredentials


def test_verifying_does_not_consume_the_nonce(bakery: NewSite) -> None:
    headers = {name.lower(): value for name, value in signed(bakery, "POST", TARGET, BODY).items()}
    request = PresentedRequest("POST", TARGET, headers, BODY)

    first, again = verify_credentials(request), verify_credentials(request)

    assert first == again
    assert first.nonce is not None
    assert UsedNonce.objects.count() == 0
    authenticate(request)
    assert bytes(UsedNonce.objects.get().digest) == first.nonce


def test_only_signed_requests_have_a_nonce_to_consume(bakery: NewSite) -> None:
    for headers in (bearer(token(bakery)), bearer(bakery.api_key.secret)):
        lower = {name.lower(): value for name, value in headers.items()}
        assert verify_credentials(PresentedRequest("POST", TARGET, lower, BODY)).nonce is None


# Legacy signatures


@pytest.fixture
def legacy(bakery: NewSite) -> NewSite:
    Site.objects.update(accepts_legacy_signature=True)
    cached_lookups.clear_caches()
    return bakery


def test_legacy_signatures_are_rejected_by_default(bakery: NewSite) -> None:
    assert type(refusal(signed_legacy(bakery, BODY))) is InvalidCredentials


def test_a_legacy_signature_is_accepted_where_the_site_allows_it(legacy: NewSite) -> None:
    identity = ask(signed_legacy(legacy, BODY))

    assert (identity.site, identity.auth_method) == (legacy.site, AuthMethod.LEGACY_SIGNATURE)


def test_a_legacy_signature_is_used_once(legacy: NewSite) -> None:
    headers = signed_legacy(legacy, BODY)
    ask(headers)

    assert type(refusal(headers)) is ReplayedRequest
    assert type(refusal({**headers, "X-Nonce": "a-fresh-nonce"})) is ReplayedRequest


def test_a_legacy_signature_has_the_same_window(legacy: NewSite) -> None:
    assert type(refusal(signed_legacy(legacy, BODY, timestamp=clock.unix_seconds() - 70))) is StaleTimestamp


def test_a_legacy_signature_binds_the_body(legacy: NewSite) -> None:
    assert type(refusal(signed_legacy(legacy, BODY), body=b"{}")) is InvalidCredentials


def test_a_v1_signature_needs_its_nonce_also_where_legacy_signatures_are_allowed(legacy: NewSite) -> None:
    assert type(refusal({**signed(legacy, "POST", TARGET, BODY), "X-Nonce": ""})) is InvalidCredentials


# JWT


def test_a_jwt_is_authenticated_with_its_restrictions(bakery: NewSite) -> None:
    text = token(bakery, scope="jobs:read jobs:write", model="gpt-5", max_tokens=100, origin="https://bakery.test")

    assert ask(bearer(text)) == Identity(
        bakery.site,
        AuthMethod.JWT,
        bakery.signing_secret.credential.public_id,
        scopes=frozenset({"jobs:read", "jobs:write"}),
        grant=Grant("gpt-5", 100),
        origin="https://bakery.test",
    )


def test_a_jwt_without_restrictions_allows_everything(bakery: NewSite) -> None:
    identity = ask(bearer(token(bakery)))

    assert (identity.scopes, identity.grant, identity.origin) == (None, UNRESTRICTED, None)


def test_a_jwt_with_half_a_surrogate_pair_is_malformed(bakery: NewSite) -> None:
    assert type(refusal(bearer(token(bakery, model="\ud800")))) is MalformedCredentials


def test_a_jwt_with_an_empty_scope_allows_nothing(bakery: NewSite) -> None:
    assert ask(bearer(token(bakery, scope=""))).scopes == frozenset()
    assert ask(bearer(token(bakery, scope=[]))).scopes == frozenset()


def test_a_kid_selects_one_secret(bakery: NewSite) -> None:
    new = issue(bakery.site, CredentialKind.SIGNING_SECRET)
    cached_lookups.clear_caches()

    assert (
        ask(bearer(token(bakery, new.secret, kid=new.credential.public_id))).credential_id == new.credential.public_id
    )
    wrong = token(bakery, new.secret, kid=bakery.signing_secret.credential.public_id)
    assert type(refusal(bearer(wrong))) is InvalidCredentials


def test_the_bearer_scheme_is_case_insensitive_and_x_api_key_works_too(bakery: NewSite) -> None:
    assert ask({"authorization": f"bearer  {token(bakery)}"}).site == bakery.site
    assert ask({"x-api-key": token(bakery)}).site == bakery.site


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT", **header}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def signed_by_hand(payload: bytes, secret: str, header: bytes = b'{"alg":"HS256"}') -> str:
    """A token with any bytes as payload, truly signed."""
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    signature = hmac.new(secret.encode(), text, "sha256").digest()
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_invalid_jwts_get_the_same_message(bakery: NewSite, florist: NewSite) -> None:
    good = {"sub": "bakery", "exp": clock.unix_seconds() + 60}
    secret = bakery.signing_secret.secret
    tokens = [
        token(bakery, secret="w" * 50),
        token(bakery, sub="nobody"),
        token(bakery, sub=None),
        token(bakery, sub="florist"),
        token(bakery, sub=bakery.site.public_id),
        token(bakery, kid="key_unknown"),
        unsigned(good),
        unsigned(good, alg="None"),
        unsigned(good, alg="HS256"),
        jwt.encode(good, secret * 2, algorithm="HS512"),
        jwt.encode(good, secret, algorithm="HS384"),
        token(bakery)[:-2],
        token(bakery) + "x",
        "..",
        "a.b.c",
        "ü.ü.ü",
        token(bakery, padding="x" * 5000),
        signed_by_hand(json.dumps(good).encode(), secret, b'{"alg":"HS512"}'),
        signed_by_hand(json.dumps(good).encode(), secret, b'{"alg":"none"}'),
        signed_by_hand(b"[1]", secret),
        signed_by_hand(b"\xff\xfe", secret),
        signed_by_hand(b"[" * 2500, secret),
        signed_by_hand(b'{"sub":' * 300, secret),
        signed_by_hand(b'{"sub":5}', secret),
        signed_by_hand(b'{"sub":"bakery\\u0000"}', secret),
        signed_by_hand(b'{"sub":"\\ud800"}', secret),
        signed_by_hand(b'{"sub":"bakery"}', secret, b'{"alg":"HS256","b64":false}'),
        signed_by_hand(b'{"sub":"bakery"}', secret, b'{"alg":"HS256","kid":7}'),
        signed_by_hand(b'{"sub":"bakery"}', secret, b'{"alg":"HS256","crit":["b64"],"b64":false}'),
        signed_by_hand(b'{"sub":"bakery"}', secret, b'{"typ":"JWT"}'),
        signed_by_hand(b'{"sub":"bakery"}', secret, b"[" * 1500),
    ]

    found = [(type(error), str(error)) for error in (refusal(bearer(text)) for text in tokens)]

    assert found == [(InvalidCredentials, str(InvalidCredentials()))] * len(tokens)


@pytest.mark.parametrize(
    ("claims", "error", "words"),
    [
        ({"exp": -31}, ExpiredCredentials, "expired"),
        ({"exp": 3700}, MalformedCredentials, "within an hour"),
        ({"iat": 31}, StaleTimestamp, "iat is in the future"),
        ({"nbf": 31}, StaleTimestamp, "nbf is in the future"),
    ],
)
def test_a_jwt_outside_its_validity_is_rejected(
    bakery: NewSite, claims: dict[str, int], error: type[TenantError], words: str
) -> None:
    with clock.frozen(clock.now()):
        moments = {name: clock.unix_seconds() + seconds for name, seconds in claims.items()}
        caught = refusal(bearer(token(bakery, None, None, **moments)))

    assert type(caught) is error
    assert words in str(caught)


@pytest.mark.parametrize("claims", [{"exp": -29}, {"exp": 3620}, {"iat": 29}, {"iat": -5000}, {"nbf": 29}])
def test_clocks_may_differ_a_little(bakery: NewSite, claims: dict[str, int]) -> None:
    with clock.frozen(clock.now()):
        moments = {name: clock.unix_seconds() + seconds for name, seconds in claims.items()}
        assert ask(bearer(token(bakery, None, None, **moments))).site == bakery.site


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": [1]},
        {"exp": 10**400},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"iat": "now"},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": "many"},
        {"max_tokens": True},
        {"max_tokens": 1.5},
        {"max_tokens": 2**31},
        {"model": 5},
        {"model": ""},
        {"origin": ["https://bakery.test"]},
        {"scope": 5},
        {"scope": "everything"},
        {"scope": ["jobs:read", 5]},
        {"aud": "another desk"},
    ],
)
def test_an_invalid_claim_is_explained_to_its_signer(bakery: NewSite, claims: dict[str, Any]) -> None:
    claims = {"sub": "bakery", "exp": clock.unix_seconds() + 60, **claims}
    text = signed_by_hand(
        json.dumps({name: value for name, value in claims.items() if value is not None}).encode(),
        bakery.signing_secret.secret,
    )

    assert type(refusal(bearer(text))) is MalformedCredentials


# What the desk minted


def minted_token(made: NewSite, **claims: Any) -> str:
    stated = {
        "aud": "desk",
        "sub": made.site.slug,
        "jti": "tok_1",
        "site": made.site.public_id,
        "cred": made.api_key.credential.public_id,
        "scope": "chat:write",
    }
    return minted_jwts.mint(JwtPurpose.TOKEN, {**stated, **claims}, seconds=60).text


def test_a_narrow_token_is_authenticated_with_its_restrictions(bakery: NewSite) -> None:
    text = minted_token(bakery, model="gpt-5", max_tokens=9, origin="https://bakery.test")

    assert ask(bearer(text)) == ask({"x-api-key": text})
    assert ask(bearer(text)) == Identity(
        bakery.site,
        AuthMethod.TOKEN,
        bakery.api_key.credential.public_id,
        scopes=frozenset({"chat:write"}),
        grant=Grant("gpt-5", 9, allows_premium_tiers=False),
        origin="https://bakery.test",
        token_id="tok_1",
    )


def test_a_forged_narrow_token_is_rejected(bakery: NewSite, florist: NewSite) -> None:
    header, payload, mac = minted_token(bakery).split(".")
    hostile = [
        minted_token(bakery, cred="key_01ka2m7v5xf3v8k0q9r6t4w2ye"),
        minted_token(bakery, cred="nonsense"),
        minted_token(bakery, cred=florist.api_key.credential.public_id),
        signed_by_hand(json.dumps({"sub": "bakery"}).encode(), bakery.signing_secret.secret, b'{"alg":"HS256"}')[:-1],
        # A site that writes our header over its own claims.
        f"{header}.{token(bakery).split('.')[1]}.{token(bakery).split('.')[2]}",
        # Ours, with the header of a site's own.
        f"{token(bakery).split('.')[0]}.{payload}.{mac}",
        minted_jwts.mint(JwtPurpose.TICKET, {"sub": "bakery"}, seconds=60).text[:-1],
    ]

    found = [(type(error), str(error)) for error in (refusal(bearer(text)) for text in hostile)]

    assert found == [(InvalidCredentials, str(InvalidCredentials()))] * len(hostile)


@pytest.mark.parametrize("end", ["credential", "site", "time"])
def test_a_narrow_token_is_invalid_once_its_credential_is(bakery: NewSite, end: str) -> None:
    text = minted_token(bakery)
    if end == "credential":
        Credential.objects.filter(kind=CredentialKind.API_KEY).update(expires_at=clock.now() - timedelta(seconds=1))
    elif end == "site":
        Site.objects.update(is_active=False)

    with clock.frozen(clock.now() + timedelta(seconds=61 if end == "time" else 0)):
        assert type(refusal(bearer(text))) is (ExpiredCredentials if end == "time" else InvalidCredentials)


def test_a_ticket_is_not_a_credential_and_its_holder_gets_an_explanation(bakery: NewSite) -> None:
    text = minted_jwts.mint(
        JwtPurpose.TICKET, {"aud": "stream", "sub": "stm_1", "site": bakery.site.public_id}, seconds=60
    ).text

    assert "events of its own stream" in str(refusal(bearer(text)))
    assert type(refusal({"x-api-key": text})) is MalformedCredentials


# API keys


def test_an_api_key_is_authenticated_from_either_header(bakery: NewSite) -> None:
    expected = Identity(bakery.site, AuthMethod.API_KEY, bakery.api_key.credential.public_id)

    assert ask(bearer(bakery.api_key.secret)) == expected
    assert ask({"X-Api-Key": bakery.api_key.secret}) == expected


def test_invalid_keys_get_the_same_message(bakery: NewSite) -> None:
    key = bakery.api_key.secret
    keys = [key[:-1] + "_", key[:-1] + ("a" if key[-1] != "a" else "b"), key + "x", "nd_" + "0" * 10 + "_" + "0" * 40]
    keys += ["nd_", "sk-123", "\xff", bakery.signing_secret.secret, "x" * 60_000]

    found = [(type(error), str(error)) for error in (refusal(bearer(text)) for text in keys)]

    assert found == [(InvalidCredentials, str(InvalidCredentials()))] * len(keys)


@pytest.mark.parametrize("kind", list(CredentialKind))
def test_a_revoked_credential_is_rejected(bakery: NewSite, kind: CredentialKind) -> None:
    revoke(Credential.objects.get(kind=kind))

    for headers in _headers_by_kind(bakery)[kind]:
        assert type(refusal(headers)) is InvalidCredentials


@pytest.mark.parametrize("kind", list(CredentialKind))
def test_an_expired_credential_is_rejected(bakery: NewSite, kind: CredentialKind) -> None:
    Credential.objects.filter(kind=kind).update(expires_at=clock.now() - timedelta(seconds=1))

    for headers in _headers_by_kind(bakery)[kind]:
        assert type(refusal(headers)) is InvalidCredentials


def _headers_by_kind(made: NewSite) -> dict[CredentialKind, list[dict[str, str]]]:
    return {
        CredentialKind.SIGNING_SECRET: [signed(made, "POST", TARGET, BODY), bearer(token(made))],
        CredentialKind.API_KEY: [bearer(made.api_key.secret)],
    }


def test_credentials_of_an_inactive_site_are_rejected(bakery: NewSite) -> None:
    Site.objects.update(is_active=False)

    for headers in sum(_headers_by_kind(bakery).values(), []):
        assert type(refusal(headers)) is InvalidCredentials


# Nothing, too much


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"X-Site-ID": "bakery", "X-Timestamp": "1", "X-Nonce": "12345678"},
        {"X-Api-Key": "", "X-Signature": ""},
    ],
)
def test_without_credentials_the_message_says_what_to_send(headers: dict[str, str]) -> None:
    assert type(refusal(headers)) is MissingCredentials


def test_two_credentials_in_one_request_conflict(bakery: NewSite, florist: NewSite) -> None:
    key, other = bakery.api_key.secret, florist.api_key.secret

    for headers in (
        {**signed(bakery, "POST", TARGET, BODY), **bearer(key)},
        {**signed(bakery, "POST", TARGET, BODY), "X-Api-Key": key},
        {**bearer(key), "X-Api-Key": other},
        {**bearer(token(bakery)), "X-Api-Key": key},
        {**bearer(key), "X-Site-ID": "florist"},
        {**bearer(token(bakery)), "X-Site-ID": florist.site.public_id},
    ):
        assert type(refusal(headers)) is ConflictingCredentials


def test_the_same_credential_twice_does_not_conflict(bakery: NewSite) -> None:
    key = bakery.api_key.secret

    assert ask({**bearer(key), "X-Api-Key": key, "X-Site-ID": "bakery"}).site == bakery.site


# Unknown and wrong take the same way


def work_of(act: Callable[[], object]) -> list[tuple[str, str]]:
    """Return every function called meanwhile, also those written in C, in order."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))
        elif event == "c_call":
            calls.append(("C", argument.__qualname__))

    # Who looks for garbage in the middle of it calls functions too: hypothesis has hung one up there.
    gc.disable()
    sys.setprofile(note)
    try:
        act()
    except Unauthenticated:
        pass
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def same_work(one: dict[str, str], other: dict[str, str]) -> list[tuple[str, str]]:
    """Check that two refusals take the same steps, and return them."""
    refusal(one), refusal(other)  # now both are cached, as for an attacker who probes
    work = work_of(lambda: ask(one))
    assert work_of(lambda: ask(other)) == work
    return work


@pytest.mark.parametrize("rotated", [False, True])
def test_verifying_a_signature_takes_the_same_work_for_wrong_and_unknown_sites(bakery: NewSite, rotated: bool) -> None:
    if rotated:
        issue(bakery.site, CredentialKind.SIGNING_SECRET)
    wrong = signed(bakery, "POST", TARGET, BODY, secret="wrong")

    work = same_work(wrong, {**wrong, "X-Site-ID": "nobody"})

    assert sum(1 for _, name in work if name == "sign_request") == cached_lookups.MAX_LIVE_CREDENTIALS


def test_verifying_a_legacy_signature_takes_the_same_work_for_allowed_and_unknown_sites(
    bakery: NewSite, florist: NewSite
) -> None:
    Site.objects.filter(slug="florist").update(accepts_legacy_signature=True)
    off, on = signed_legacy(bakery, b"x"), {**signed_legacy(florist, b"x"), "X-Site-ID": "florist"}

    work = same_work(on, {**off, "X-Site-ID": "nobody1"})

    assert sum(1 for _, name in work if name == "sign_request_legacy") == cached_lookups.MAX_LIVE_CREDENTIALS
    same_work(off, {**off, "X-Site-ID": to_unknown(bakery)})


def test_verifying_a_jwt_takes_the_same_work_for_wrong_and_unknown_sites(bakery: NewSite) -> None:
    wrong, unknown = token(bakery, secret="w" * 50), token(bakery, secret="w" * 50, sub="bakers")

    work = same_work(bearer(wrong), bearer(unknown))

    assert sum(1 for _, name in work if name == "_is_valid_mac") == cached_lookups.MAX_LIVE_CREDENTIALS


def test_verifying_a_key_takes_the_same_work_for_wrong_and_unknown_keys(bakery: NewSite) -> None:
    wrong = bakery.api_key.secret[:-4] + "0000"
    unknown = "nd_" + "0" * 10 + wrong[13:]

    work = same_work(bearer(wrong), bearer(unknown))

    assert ("C", "compare_digest") in work


def test_there_are_enough_distinct_decoys() -> None:
    assert len({decoy.secret for decoy in DECOY_SECRETS}) == cached_lookups.MAX_LIVE_CREDENTIALS


def to_unknown(made: NewSite) -> str:
    """An id of the right form that no site has."""
    return made.site.public_id[:-1] + ("0" if made.site.public_id[-1] != "0" else "1")
