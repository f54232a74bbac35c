"""signatures: the shorter way says what PyJWT says, and ordinary tokens go it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import string
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from heartwire.keys import PUBLIC_KEY_ALGORITHMS
from heartwire.signatures import Malformed, Signatures

SECRET = b"a secret of thirty-two bytes ...!"
OTHER = b"another secret, 32 bytes long...!"
PAYLOAD = b'{"sub":"u1"}'


def segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def sign(text: bytes, secret: bytes = SECRET) -> str:
    """A signature that fits whatever was written before it."""
    return (text + b"." + segment(hmac.new(secret, text, hashlib.sha256).digest())).decode()


def token(payload: bytes = PAYLOAD, secret: bytes = SECRET, **header: Any) -> str:
    fields = {"alg": "HS256", "typ": "JWT", **header}
    return sign(segment(json.dumps(fields).encode()) + b"." + segment(payload), secret)


def verdict(signatures: Signatures, text: str, algorithm: str = "HS256", keys: Any = (SECRET,)) -> Any:
    try:
        return signatures.verify(text, algorithm, keys)
    except Malformed as error:
        return "malformed" if error.__context__ is None else "what PyJWT raised rides along"


class Counted(Signatures):
    """Counts the tokens that PyJWT looks at whole."""

    def __init__(self, *algorithms: str) -> None:
        super().__init__(algorithms or ("HS256",))
        self.whole = 0
        decode = self._jws.decode_complete

        def counted(*args: Any, **options: Any) -> Any:
            self.whole += 1
            return decode(*args, **options)

        self._jws.decode_complete = counted  # type: ignore[method-assign]


def test_a_header_is_read_once() -> None:
    signatures = Counted()
    for i in range(10):
        assert verdict(signatures, token(b'{"sub":"u%d"}' % i)) == b'{"sub":"u%d"}' % i
    assert signatures.whole == 1
    assert verdict(signatures, token(kid="k")) == PAYLOAD
    assert signatures.whole == 2


def test_only_an_accepted_header_counts() -> None:
    signatures = Counted()
    for _ in range(2):
        assert verdict(signatures, token(secret=OTHER)) is None
        assert verdict(signatures, token(crit=["unknown"], unknown=1)) == "malformed"
        assert verdict(signatures, token(b64=False, crit=["b64"])) == "malformed"
        assert verdict(signatures, token(kid=7)) == "malformed"
        # Signed as HS256, and says so; but that is not what was asked for.
        assert verdict(signatures, token(), "HS384") == "malformed"
    assert signatures.whole == 10
    assert not signatures._accepted


def test_an_accepted_header_of_one_algorithm_is_not_of_another() -> None:
    signatures = Counted("HS256", "HS384")
    text = token()
    signed = text.rpartition(".")[0].encode()
    longer = (signed + b"." + segment(hmac.new(SECRET, signed, hashlib.sha384).digest())).decode()
    assert verdict(signatures, text) == PAYLOAD
    # The header says HS256. Whoever asks for HS384 gets neither.
    assert verdict(signatures, longer, "HS384") == "malformed"
    assert verdict(signatures, longer) is None


def test_keys_are_tried_in_turn() -> None:
    signatures = Counted()
    assert verdict(signatures, token(secret=OTHER), keys=(SECRET, OTHER)) == PAYLOAD
    seen = signatures.whole
    assert verdict(signatures, token(secret=OTHER), keys=(SECRET, OTHER)) == PAYLOAD
    assert verdict(signatures, token(), keys=(SECRET, OTHER)) == PAYLOAD
    assert verdict(signatures, token(secret=OTHER)) is None
    assert signatures.whole == seen  # nor is a wrong signature made twice
    assert verdict(signatures, token(), keys=()) is None


def test_headers_are_bounded() -> None:
    signatures = Counted()
    for i in range(1000):
        assert verdict(signatures, token(kid=str(i))) == PAYLOAD
        assert len(signatures._accepted) <= 64
    assert verdict(signatures, token(kid="x" * 1000)) == PAYLOAD
    assert all(len(header) <= 256 for header, _ in signatures._accepted)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES512", "EdDSA"])
def test_public_keys(algorithm: str) -> None:
    assert algorithm in PUBLIC_KEY_ALGORITHMS
    private: Any = {
        "RS": lambda: rsa.generate_private_key(65537, 2048),
        "PS": lambda: rsa.generate_private_key(65537, 2048),
        "ES": lambda: ec.generate_private_key(ec.SECP256R1() if algorithm == "ES256" else ec.SECP521R1()),
        "Ed": ed25519.Ed25519PrivateKey.generate,
    }[algorithm[:2]]
    mine, other = private(), private()
    signatures = Counted(algorithm)
    keys = (mine.public_key(),)
    for i in range(3):
        assert verdict(signatures, jwt.encode({"n": i}, mine, algorithm), algorithm, keys) == b'{"n":%d}' % i
    assert signatures.whole == 1
    assert verdict(signatures, jwt.encode({"n": 1}, other, algorithm), algorithm, keys) is None
    head, _, last = jwt.encode({"n": 1}, mine, algorithm).rpartition(".")
    assert verdict(signatures, f"{head}.{last[:40]}", algorithm, keys) is None
    assert verdict(signatures, f"{head}.", algorithm, keys) is None


def spellings(rng: random.Random, text: str) -> str:
    """The token written otherwise: now and then still the same value, mostly wrong."""
    head, payload, last = text.split(".")
    which = rng.randrange(9)
    if which == 0:  # other bits behind the last byte: the same value to a lax decoder
        alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
        last = last[:-1] + alphabet[alphabet.index(last[-1]) ^ rng.randrange(4)]
    elif which == 1:
        last += "=" * rng.randrange(4)
    elif which == 2:
        payload += "=" * rng.randrange(4)
        last = sign(f"{head}.{payload}".encode()).rpartition(".")[2]
    elif which == 3:
        last = last.replace("-", "+").replace("_", "/")
    elif which == 4:  # what lax decoders pass over, signed
        at = rng.randrange(len(payload) + 1)
        payload = payload[:at] + rng.choice(["\n", " ", "*", "+", "/", "\0", ".", "=", "A"]) + payload[at:]
        last = sign(f"{head}.{payload}".encode()).rpartition(".")[2]
    elif which == 5:
        at = rng.randrange(len(last))
        last = last[:at] + rng.choice("\n *+/=.AZ") + last[at + rng.randrange(2) :]
    elif which == 6:  # no payload at all
        return sign(head.encode())
    elif which == 7:
        payload = payload[: rng.randrange(len(payload))]
        last = sign(f"{head}.{payload}".encode()).rpartition(".")[2]
    return f"{head}.{payload}.{last}"


def test_as_pyjwt_says(rng: random.Random) -> None:
    """However a token is spelled, the verdict is that of an instance that has accepted no header yet."""
    signatures, yes, no = Counted(), 0, 0
    assert verdict(signatures, token()) == PAYLOAD
    for i in range(3000):
        text = spellings(rng, token(b'{"sub":"%s"}' % (b"u" * (i % 7)), rng.choice([SECRET, SECRET, OTHER])))
        said = verdict(signatures, text)
        assert said == verdict(Signatures(("HS256",)), text), text
        yes, no = yes + isinstance(said, bytes), no + (said == "malformed")
    assert yes > 300
    assert no > 300
    assert signatures.whole < 3000  # some went the shorter way
