"""Who a client is, and which channels that lets it into."""

from __future__ import annotations

from typing import Any

import msgspec

from heartwire.errors import Refusal

__all__ = ["Credentials", "credentials_of", "matches_pattern"]


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """Who a client is, as a verified token said. Immutable and small: one is kept for each client.

    Attributes:
        user_id: the claim `sub`.
        username: the claim `username`.
        expires_at: the claim `exp`, Unix seconds; `None` if the token has no end.
        claims_json: all claims, the token's payload as it was signed.
        channels: patterns of the channels the user may join; empty without the claim `channels`.
        publish: patterns of the channels the user may send to; `None` without the claim `publish`: wherever
            they may be.
    """

    user_id: str
    username: str | None
    expires_at: float | None
    claims_json: bytes
    channels: tuple[str, ...] = ()
    publish: tuple[str, ...] | None = None

    @property
    def claims(self) -> dict[str, Any]:
        """All claims, decoded anew at each access: the dict is the caller's."""
        claims: dict[str, Any] = msgspec.json.decode(self.claims_json)
        return claims

    def allows_channel(self, name: str) -> bool:
        """Whether a pattern of `channels` fits the name; `*` stands for any run of characters."""
        return any(matches_pattern(pattern, name) for pattern in self.channels)

    def allows_publish(self, name: str) -> bool:
        """Whether the token lets its bearer send to the channel: a pattern of `publish` fits, or there is no
        such claim."""
        return self.publish is None or any(matches_pattern(pattern, name) for pattern in self.publish)

    def __repr__(self) -> str:
        return f"<Credentials of {self.user_id!r}, expires_at={self.expires_at}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("user_id", self.user_id), ("expires_at", self.expires_at)]


def credentials_of(identity: Any) -> Credentials:
    """What `@server.authenticate` returned: Credentials, a dict of claims, or a user id.

    Raises:
        Refusal: 401 for None, False, or anything else.
    """
    if isinstance(identity, Credentials):
        return identity
    if isinstance(identity, str):
        identity = {"sub": identity}
    if isinstance(identity, dict):
        claims = msgspec.json.encode(identity)
        channels, publish = tuple(identity.get("channels") or ()), identity.get("publish")
        return Credentials(
            str(identity["sub"]), identity.get("username"), identity.get("exp"), claims, channels,
            None if publish is None else tuple(publish),
        )  # fmt: skip
    raise Refusal(401, "unauthenticated", "not accepted", (("WWW-Authenticate", "Bearer"),))


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether `name` is `pattern`, in which `*` stands for any run of characters, also none.

    Takes time linear in the number of `*`: a user name within a pattern cannot make it slow.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    position, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
