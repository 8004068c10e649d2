"""Encryption at rest: a ciphertext decrypts with its own key and for its own purpose only."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.crypto import (
    InvalidKeyring,
    Keyring,
    TamperedCiphertext,
    UnknownEncryptionKey,
    key_id_of,
    new_key,
    parse_keyring,
)

OLD, NEW = new_key(), new_key()
OLD_RING = parse_keyring(f"k1:{OLD}")
BOTH = parse_keyring(f"k2:{NEW},k1:{OLD}")


@given(st.binary())
def test_an_encrypted_text_decrypts(plaintext: bytes) -> None:
    assert BOTH.decrypt(BOTH.encrypt(plaintext, purpose="jobs.payload"), purpose="jobs.payload") == plaintext


def test_the_first_key_encrypts_and_the_other_keys_still_decrypt() -> None:
    old = OLD_RING.encrypt(b"secret", purpose="p")

    assert BOTH.decrypt(old, purpose="p") == b"secret"
    assert key_id_of(BOTH.encrypt(b"secret", purpose="p")) == "k2"


def test_the_error_names_a_removed_key() -> None:
    sealed = OLD_RING.encrypt(b"secret", purpose="p")

    with pytest.raises(UnknownEncryptionKey, match="'k1'"):
        parse_keyring(f"k2:{NEW}").decrypt(sealed, purpose="p")


def test_encrypting_twice_gives_two_ciphertexts() -> None:
    assert BOTH.encrypt(b"secret", purpose="p") != BOTH.encrypt(b"secret", purpose="p")


def test_a_ciphertext_does_not_decrypt_for_another_purpose() -> None:
    with pytest.raises(TamperedCiphertext):
        BOTH.decrypt(BOTH.encrypt(b"secret", purpose="endpoint.secret"), purpose="job.result")


def test_a_ciphertext_with_a_changed_byte_does_not_decrypt() -> None:
    sealed = BOTH.encrypt(b"secret", purpose="p")

    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((TamperedCiphertext, UnknownEncryptionKey)):
            BOTH.decrypt(bytes(changed), purpose="p")


@pytest.mark.parametrize(
    "sealed", [b"", b"\x01", b"\x01\x02k1", b"\x02\x02k1" + b"x" * 40, b"\x01\x01\xff" + b"x" * 40]
)
def test_a_text_that_is_not_encrypted_is_rejected(sealed: bytes) -> None:
    with pytest.raises(TamperedCiphertext):
        BOTH.decrypt(sealed, purpose="p")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k1",
        "k1:",
        f":{OLD}",
        f"k-1:{OLD}",
        f"k1:{OLD},k1:{NEW}",
        "k1:AAAA",
        "k1:!!",
        f"{'k' * 33}:{OLD}",
        f"é:{OLD}",
    ],
    # Every process that collects the tests must find the same names.
    ids=lambda text: text.replace(OLD, "OLD").replace(NEW, "NEW"),
)
def test_an_invalid_keyring_is_rejected_and_not_shown_in_full(text: str) -> None:
    with pytest.raises(InvalidKeyring) as caught:
        parse_keyring(text)

    assert OLD not in str(caught.value)


def test_a_keyring_has_no_keys_in_its_repr() -> None:
    assert OLD.encode() not in repr(BOTH).encode()
    assert "b'" not in repr(Keyring("k1", {"k1": b"0" * 32}))


def test_derived_keys_are_those_of_rfc_5869() -> None:
    """Its extract and expand steps, written out for one block."""
    extracted = hmac.digest(b"\0" * 32, b"0" * 32, "sha256")
    expanded = hmac.digest(extracted, b"a label\x01", "sha256")

    assert Keyring("k1", {"k1": b"0" * 32}).derive("a label") == {"k1": expanded}


def test_every_key_and_label_derives_a_distinct_key_and_the_active_one_is_first() -> None:
    ring = Keyring("new", {"old": b"o" * 32, "new": b"n" * 32})
    one, other = ring.derive("one"), ring.derive("other")

    assert list(one) == list(other) == ["new", "old"]
    assert len({*one.values(), *other.values(), *ring.keys.values()}) == 6
