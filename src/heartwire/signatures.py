"""Whether one of some keys has signed a token: compact JWS (RFC 7515), by PyJWT.

PyJWT takes 16 µs for a token whose signature costs 2: it reads each character and the header in Python
(`make bench-micro ARGS='-k verify_token'`). Issuers sign with few headers. So a header that it has accepted
is remembered, and a token that begins with the very same and is spelled as encoding spells it goes straight
to PyJWT's algorithm. Everything else PyJWT judges whole.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from typing import Any, Final

import jwt

from heartwire.keys import algorithm_of

__all__ = ["Malformed", "Signatures"]

_HEADERS_MOST: Final = 64
_LONGEST_HEADER: Final = 256  # characters
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_REFUSALS: Final = (jwt.PyJWTError, ValueError, TypeError, RecursionError)


class Malformed(ValueError):
    """What should be a token is none. Says nothing of what it holds."""


class Signatures:
    """Verifies signatures. Loop thread only.

    Args:
        algorithms: those that may be asked for.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        # PyJWT's `none` and others not named are not merely unused: this instance does not know them.
        self._jws = jwt.PyJWS(algorithms=[])
        self._algorithms = {name: algorithm_of(name) for name in algorithms}
        for name, algorithm in self._algorithms.items():
            self._jws.register_algorithm(name, algorithm)
        self._accepted: set[tuple[bytes, str]] = set()

    def verify(self, token: str, algorithm: str, keys: Sequence[Any]) -> bytes | None:
        """The payload, if one of the keys has signed the token; None if none has.

        Args:
            token: ASCII.
            algorithm: the only one that counts, whatever the token says.
            keys: what PyJWT takes as keys of that algorithm, in the order they are tried.
        Raises:
            Malformed: no key could have.
        """
        text = token.encode()
        header = text.partition(b".")[0]
        if (header, algorithm) in self._accepted and (parts := _parts(text, header)) is not None:
            signed, payload, signature = parts
            by = self._algorithms[algorithm]
            try:
                for key in keys:
                    if by.verify(signed, by.prepare_key(key), signature):
                        return payload
                return None
            except _REFUSALS:
                pass  # judged whole
        for key in keys:
            try:
                verified = self._jws.decode_complete(token, key, algorithms=[algorithm])
            except jwt.InvalidSignatureError:
                continue
            except _REFUSALS:
                break
            if len(header) <= _LONGEST_HEADER:
                if len(self._accepted) >= _HEADERS_MOST:
                    self._accepted.clear()
                self._accepted.add((header, algorithm))
            whole: bytes = verified["payload"]
            return whole
        else:
            return None
        # Not in the handler: what PyJWT raises may quote the token, and would ride along as context.
        raise Malformed("not a token")


def _parts(token: bytes, header: bytes) -> tuple[bytes, bytes, bytes] | None:
    """What is signed, the payload in it, the signature; None unless they are three segments, well spelled."""
    signed, _, last = token.rpartition(b".")
    if not signed.startswith(header + b"."):
        return None
    payload, signature = _decoded(signed[len(header) + 1 :]), _decoded(last)
    return None if payload is None or signature is None else (signed, payload, signature)


def _decoded(segment: bytes) -> bytes | None:
    """Base64url without padding. None unless it is what encoding gives: each value has one spelling."""
    try:
        data = a2b_base64(segment.translate(_FROM_URL) + b"=" * (-len(segment) % 4))
    except Base64Error:
        return None
    return data if b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=") == segment else None
