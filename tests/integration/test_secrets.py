"""Secrets of a running server: no object of ours shows one, and comparing tells nothing by its time."""

from __future__ import annotations

import ast
import gc
import hmac
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import heartwire
from heartwire import Server
from integration.http.api import api_of
from integration.peers import get, handshake, json_client, raw_peer, token
from publisher import publisher
from signing import SECRET, jwk_set, key_pair

PACKAGE = Path(heartwire.__file__).parent
API_KEY, FILE_KEY = "an-api-key-nobody-may-see", "another-api-key-in-a-file"
FILE_SECRET = "a-secret-in-a-file-that-is-long-enough-for-HS256"
HOOK_SECRET = "a-secret-of-webhooks-that-is-long-enough"
IN_QUERY = "a-key-in-the-query-of-an-address"


@pytest.fixture
def link() -> str:
    """One is enough: secrets know nothing of links."""
    return "auto"


# ------------------------------------------------------------------ what shows itself


def attributes(thing: Any) -> Iterator[Any]:
    """What a thing of ours holds and the collector does not see: slots of compiled types and structs."""
    for kind in type(thing).__mro__:
        for name, member in vars(kind).items():
            if inspect.isgetsetdescriptor(member) or inspect.ismemberdescriptor(member):
                try:
                    yield getattr(thing, name)
                except Exception:  # not set, or not for a connection in this state
                    continue


def ours(thing: Any) -> bool:
    return (type(thing).__module__ or "").partition(".")[0] == "heartwire"


def reachable(root: Any) -> Iterator[Any]:
    """Every object of ours that can be come to from here, not by way of modules."""
    seen: dict[int, Any] = {}
    rest = [root]
    while rest:
        thing = rest.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType):
            continue
        seen[id(thing)] = thing
        if inspect.isfunction(thing):
            rest += [cell.cell_contents for cell in thing.__closure__ or ()]
            continue
        rest += gc.get_referents(thing)
        if ours(thing):
            rest += attributes(thing)
            yield thing


def shown(thing: Any) -> str:
    rich = thing.__rich_repr__() if hasattr(thing, "__rich_repr__") else ()
    return f"{thing!r} {thing!s} {list(rich)!r}"


async def test_no_object_shows_a_secret(make: Callable[..., Server], tmp_path: Path) -> None:
    """Whatever of ours a log line, an error or a debugger may print."""
    (tmp_path / "secrets").write_text(FILE_SECRET)
    (tmp_path / "keys").write_text(f"ops:read:{FILE_KEY}\n")
    (tmp_path / "jwks").write_bytes(jwk_set({**key_pair("HS256").jwk, "kid": "shared"}))
    in_header, in_query, in_cookie = (token(f"user {i}", secret=SECRET, jti=f"private {i}") for i in range(3))
    renewed = token("user 0", secret=FILE_SECRET, jti="private 3")
    async with publisher(jwk_set(key_pair("ES256"))) as provider:
        server = make(
            jwt_secret=[SECRET], jwt_secret_file=tmp_path / "secrets", jwks_file=tmp_path / "jwks",
            jwks_url=f"{provider.url}?key={IN_QUERY}", api_key=[API_KEY], api_key_file=tmp_path / "keys",
            webhook_url=f"{provider.url}?key={IN_QUERY}", webhook_secret=HOOK_SECRET,
            authorize_url=f"{provider.url}?key={IN_QUERY}", auth_cookie="session", keep_request=True,
            webhook_retry=0.1,
        )  # fmt: skip
        await server.start()
        cookie = {"Cookie": f"session={in_cookie}", "Origin": f"http://127.0.0.1:{server.port}"}
        async with (
            api_of(server) as api,
            json_client(server, in_header) as client,
            json_client(server, path=f"/ws?token={in_query}"),
            json_client(server, headers=cookie),
        ):
            await client.ask("authenticate", token=renewed)
            ticket = (await api.post("/api/monitor/ticket", key=API_KEY))["ticket"]
            await api.post("/api/tokens/revoke", {"jti": "somebody's"}, key=API_KEY)
            things = list(reachable(server))
    kinds = Counter(type(thing).__name__ for thing in things)
    must = {"Server", "ServerConfig", "VerificationKey", "KeyRing", "TokenCache", "Credentials",
            "Request", "RequestHeaders", "Client", "Connection", "JwksUrl", "Revocations", "Tickets",
            "TokenVerifier", "Admission"}  # fmt: skip
    assert must <= kinds.keys(), "the walk has not come to what holds secrets"
    assert kinds["Client"] == 3
    tokens = [in_header, in_query, in_cookie, renewed]
    secrets = [SECRET, FILE_SECRET, API_KEY, FILE_KEY, HOOK_SECRET, ticket, *tokens]
    secrets += [token.split(".")[2] for token in tokens]
    for thing in things:
        text = shown(thing)
        assert not [secret for secret in secrets if secret in text], type(thing)


# ------------------------------------------------------------------ comparing


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The lengths of what is compared in constant time; equal ones, or the time tells the length."""
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def record(a: Any, b: Any) -> bool:
        lengths.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", record)
    return lengths


async def test_api_keys_take_the_same_steps(
    make: Callable[..., Server], compared: list[tuple[int, int]]
) -> None:
    """Whichever it is, if any, however long: each is compared, by its digest."""
    server = make(api_key=["first:read:a-key", "second:read:one-more-key", "third:read:the-last-key-of-all"])
    await server.start()
    for presented, status in (("a-key", 200), ("the-last-key-of-all", 200), ("a-kez", 401), ("x", 401)):
        compared.clear()
        async with raw_peer(server) as peer:
            peer.send(get("/api/health", f"Authorization: Bearer {presented}"))
            assert (await peer.answer()).status == status, presented
        assert compared == [(32, 32)] * 3, presented


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
async def test_signatures_take_the_same_steps(
    make: Callable[..., Server], compared: list[tuple[int, int]], algorithm: str, size: int
) -> None:
    """An HMAC that is right and one that is wrong in its first or last bit are compared the same way."""
    server = make(jwt_secret=[SECRET], jwt_algorithms=[algorithm], token_cache=0)
    await server.start()
    good = key_pair(algorithm).token()
    head, payload, signature = good.split(".")
    first, last = ("A" if character != "A" else "B" for character in (signature[0], signature[-2]))
    for bearer, status in (
        (good, 101),
        (f"{head}.{payload}.{first}{signature[1:]}", 401),
        (f"{head}.{payload}.{signature[:-2]}{last}{signature[-1]}", 401),
    ):
        compared.clear()
        async with raw_peer(server) as peer:
            peer.send(handshake(bearer=bearer))
            assert (await peer.answer()).status == status
        assert compared == [(size, size)]


SECRET_NAMES = {
    "api_key", "digest", "given", "jwt_secret", "key_digest", "material", "password", "presented", "secret",
    "signature", "ticket", "token", "webhook_secret",
}  # fmt: skip
PUBLIC = {"jwks.py: digest != self._digest"}  # of a document that everybody may read


def test_secrets_are_compared_by_nothing_else() -> None:
    """No `==` in the package has a secret on one of its sides."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                names = {last_name(side) for side in (node.left, *node.comparators)}
                constant = any(isinstance(side, ast.Constant) for side in node.comparators)
                if names & SECRET_NAMES and not constant:
                    found.append(f"{path.name}: {ast.unparse(node)}")
    assert set(found) <= PUBLIC


def last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name.lstrip("_")
    return ""


async def test_tickets_are_looked_up_by_their_digest(make: Callable[..., Server]) -> None:
    """A look-up that ends at the first different byte must not tell of the ticket itself."""
    server = make(api_key=[API_KEY])
    await server.start()
    async with api_of(server) as api:
        ticket = (await api.post("/api/monitor/ticket", key=API_KEY))["ticket"]
        kept = [thing for thing in reachable(server) if type(thing).__name__ == "Tickets"]
    assert len(kept) == 1
    assert ticket not in msgspec.json.encode([str(key) for key in kept[0]._until]).decode()


# ------------------------------------------------------------------ what SECURITY.md says


def test_each_threat_has_its_tests() -> None:
    """The last column of the threats names files that are there."""
    tests = Path(__file__).parents[1]
    page = (tests.parent / "SECURITY.md").read_text(encoding="utf-8")
    table = page.split("## What is attacked")[1].split("## What is promised")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for threat, measure, named in rows:
        files = [name for name in re.findall(r"`([^`]+)`", named) if not name.startswith("make ")]
        assert measure
        assert files, threat
        assert not [name for name in files if not (tests / name).exists()], threat
