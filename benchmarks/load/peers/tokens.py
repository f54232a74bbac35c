"""How every Python peer checks a token: by PyJWT, as heartwire does.

A difference between two figures is then a difference between two WebSocket servers.
"""

from __future__ import annotations

import jwt


def user_id(authorization: str | None, secret: str) -> str:
    """Who the token belongs to.

    Args:
        authorization: The value of the `Authorization` header.
        secret: HS256 key.

    Raises:
        jwt.InvalidTokenError: No token, or one that is not valid.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme != "Bearer":
        raise jwt.InvalidTokenError("no bearer token")
    claims = jwt.decode(token, secret, algorithms=["HS256"])
    return str(claims["sub"])
