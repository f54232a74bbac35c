"""The table of docs/authentication.md, row by row: algorithm × source of keys × token place × failure."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from heartwire import Server, jwks
from heartwire.keys import HMAC_ALGORITHMS, PUBLIC_KEY_ALGORITHMS
from integration.http.api import KEYS, api_of
from integration.peers import handshake, json_client, raw_peer, until
from publisher import Publisher, free_port, publisher
from signing import SECRET, KeyPair, jwk_set, key_pair

PAGE = Path(__file__).parents[2] / "docs" / "authentication.md"
CLAIMS = {"aud": "heartwire", "iss": "issuer", "jti": "token-1"}
OTHER = "another-secret-of-the-tests-that-is-long-enough-for-any-HMAC-at-all-here"


class Row(NamedTuple):
    algorithm: str
    source: str
    place: str
    token: str
    answer: str


def rows() -> list[Row]:
    """The table as it stands on the page."""
    table = PAGE.read_text(encoding="utf-8").split("<!-- the table begins -->")[1]
    lines = table.split("<!-- the table ends -->")[0].strip().split("\n")[2:]
    return [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]


ROWS = rows()


@pytest.fixture
def link() -> str:
    """One is enough: tokens know nothing of links."""
    return "auto"


# ------------------------------------------------------------------ where keys come from


class Case:
    """One row: the server, its provider, and the keys."""

    def __init__(self, row: Row, make: Callable[..., Server], folder: Path) -> None:
        self.row = row
        self.folder = folder
        self.make = make
        self.provider: Publisher
        algorithm = row.algorithm
        if algorithm == "default":
            algorithm = "HS256" if row.source in ("secret", "secret file", "two secrets") else "ES256"
        self.pair = key_pair(algorithm)
        self.new = key_pair(algorithm, "k2")

    def server(self, **keys: Any) -> Server:
        options: dict[str, Any] = {
            "jwt_secret": [], "jwt_audience": CLAIMS["aud"], "jwt_issuer": CLAIMS["iss"],
            "jwt_required_claims": ["jti"], "auth_cookie": "session", "api_key": KEYS,
        }  # fmt: skip
        if self.row.algorithm != "default":
            options["jwt_algorithms"] = [self.row.algorithm]
        if self.row.place == "action":
            options["auth"] = "message"
        return self.make(**{**options, **keys})

    def file(self, content: bytes) -> Path:
        path = self.folder / "keys"
        path.write_bytes(content)
        return path

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """A server that has its keys, or will not get them."""
        source = self.row.source
        fixed = {
            "secret": lambda: {"jwt_secret": [SECRET]},
            "two secrets": lambda: {"jwt_secret": [OTHER, SECRET]},
            "secret file": lambda: {"jwt_secret_file": self.file(f"{OTHER}\n{SECRET}\n".encode())},
            "PEM": lambda: {"jwt_public_key_file": self.file(self.pair.pem)},
            "PEM and secret": lambda: {
                "jwt_public_key_file": self.file(self.pair.pem), "jwt_secret": [SECRET]
            },
            "JWKS file": lambda: {"jwks_file": self.file(jwk_set(key_pair("RS512", "k0"), self.pair))},
        }
        if source in fixed:
            server = self.server(**fixed[source]())
            await server.start()
            yield server
            return
        port = free_port() if "down" in source or "later" in source else 0
        if source in ("JWKS URL, down", "JWKS URL, later up", "JWKS URL, down, and secret"):
            secret = [SECRET] if source.endswith("secret") else []
            server = self.server(jwks_url=f"http://127.0.0.1:{port}/jwks.json", jwt_secret=secret)
            await server.start()
            await until(lambda: remote(server).failed)
            if source != "JWKS URL, later up":
                yield server
                return
            assert await ready(server) == (503, "no keys to verify tokens with: it cannot be reached "
                                                "(ClientConnectorError)")  # fmt: skip
            async with publisher(jwk_set(self.pair), port=port):
                yield server
            return
        async with publisher(jwk_set(self.pair, key_pair("RS256", "k0")), port=port) as self.provider:
            server = self.server(
                jwks_url=self.provider.url, jwt_secret=[SECRET] if source.endswith("secret") else [],
                jwks_timeout=0.3 if source == "JWKS URL, too slow" else 4,
            )  # fmt: skip
            await PUBLISHING[source](self, server)
            yield server


def remote(server: Server) -> Any:
    assert server._verification is not None
    return server._verification.remote


async def ready(server: Server) -> tuple[int, str]:
    async with api_of(server) as api:
        reply = await api.call("GET", "/ready", key=None)
    return reply.status, reply.json.get("reason", "")


async def good_keys(case: Case, server: Server) -> None:
    await server.start()
    await until(lambda: remote(server).fetched)


async def at_any_time(case: Case, server: Server) -> None:
    await server.start()


async def slow(case: Case, server: Server) -> None:
    """It answers 0.2 s after the handshake has begun to wait."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(body=case.provider.document)

    case.provider.answer = answer
    await server.start()


async def too_slow(case: Case, server: Server) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(10)
        raise AssertionError("nobody waits that long")

    case.provider.answer = answer
    await server.start()


def bad(**changes: Any) -> Callable[[Case, Server], Any]:
    async def prepare(case: Case, server: Server) -> None:
        for name, value in changes.items():
            setattr(case.provider, name, value)
        await server.start()
        await until(lambda: remote(server).failed)
        status, why = await ready(server)
        assert status == 503
        assert why.startswith("no keys to verify tokens with: it")

    return prepare


def then_bad(**changes: Any) -> Callable[[Case, Server], Any]:
    async def prepare(case: Case, server: Server) -> None:
        await good_keys(case, server)
        for name, value in changes.items():
            setattr(case.provider, name, value)
        assert await remote(server).learn(10)
        assert remote(server).failed
        assert await ready(server) == (200, "")

    return prepare


async def rotated(case: Case, server: Server) -> None:
    """The provider has another key by now, and the server does not know."""
    await good_keys(case, server)
    case.provider.document = jwk_set(case.new)
    if case.row.token == "with the old key":
        assert await remote(server).learn(10)


PUBLISHING = {
    "JWKS URL": good_keys,
    "JWKS URL and secret": good_keys,
    "JWKS URL, slow": slow,
    "JWKS URL, too slow": too_slow,
    "JWKS URL, huge": bad(document=b" " * (jwks.SIZE_LIMIT + 1)),
    "JWKS URL, malformed": bad(document=b'{"keys":['),
    "JWKS URL, redirecting": bad(status=302, headers={"Location": "/elsewhere.json"}),
    "JWKS URL, empty": bad(document=b'{"keys":[]}'),
    "JWKS URL, with secrets": bad(document=jwk_set(key_pair("HS256"))),
    "JWKS URL, then down": then_bad(status=503),
    "JWKS URL, then malformed": then_bad(document=b"<html>"),
    "JWKS URL, rotated": rotated,
}


# ------------------------------------------------------------------ tokens


def token_of(case: Case, **claims: Any) -> str:
    return case.pair.token(**{**CLAIMS, **claims})


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handmade(header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    text = f"{part(header)}.{part({'sub': 'alice', 'exp': time.time() + 60, **CLAIMS})}"
    return f"{text}.{part(sign(text.encode()))}"


def with_public_key_as_secret(case: Case) -> str:
    return handmade({"alg": "HS256"}, lambda text: hmac.digest(case.pair.pem, text, hashlib.sha256))


def with_its_own_key(case: Case) -> str:
    """`jwk` and `jku` in the header are for those who believe what a stranger says."""
    attacker = key_pair("RS256", "attacker")
    encoded = attacker.token(**CLAIMS).split(".")
    header = json.loads(base64.urlsafe_b64decode(encoded[0] + "=="))
    header |= {"jwk": attacker.jwk, "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "kid": "k1"}
    return handmade(header, lambda text: attacker.private.sign(text, padding.PKCS1v15(), SHA256()))


def of_another_algorithm(case: Case) -> str:
    others = {"RS256": "PS256", "ES256": "ES384", "HS256": "HS512"}
    other = others[case.row.algorithm]
    private = key_pair("ES384").private if other == "ES384" else case.pair.private
    return KeyPair(other, private, "k1").token(**CLAIMS)


def spoilt(case: Case) -> str:
    head, payload, signature = token_of(case).split(".")
    other = "A" if payload[5] != "A" else "B"
    return f"{head}.{payload[:5]}{other}{payload[6:]}.{signature}"


TOKENS: dict[str, Callable[[Case], str | None]] = {
    "good": token_of,
    "signed with another key": lambda case: key_pair(case.pair.algorithm, "stranger").token(
        kid="k1", **CLAIMS
    ),
    "`alg` none": lambda case: handmade({"alg": "none", "kid": "k1"}, lambda text: b""),
    "HS256 with the public key as secret": with_public_key_as_secret,
    "HS256 with the secret": lambda case: key_pair("HS256").token(**CLAIMS),
    "RS256 with a key of its own in the header": with_its_own_key,
    "of another algorithm of the same key": of_another_algorithm,
    "under another key's `kid`": lambda case: case.pair.token(kid="k0", **CLAIMS),
    "without `kid`": lambda case: case.pair.token(kid=None, **CLAIMS),
    "with an unknown `kid`": lambda case: case.pair.token(kid="who?", **CLAIMS),
    "expired": lambda case: token_of(case, exp=time.time() - 1),
    "expired, signed with another key": lambda case: key_pair(case.pair.algorithm, "stranger").token(
        exp=time.time() - 1, **CLAIMS
    ),
    "not valid yet": lambda case: token_of(case, nbf=time.time() + 60),
    "issued in the future": lambda case: token_of(case, iat=time.time() + 60),
    "for another audience": lambda case: token_of(case, aud="another"),
    "without an audience": lambda case: token_of(case, aud=None),
    "from another issuer": lambda case: token_of(case, iss="another"),
    "without `exp`": lambda case: token_of(case, exp=None),
    "without `sub`": lambda case: token_of(case, sub=None),
    "without the required claim": lambda case: token_of(case, jti=None),
    "spoilt in one character": spoilt,
    "of another user": lambda case: token_of(case, sub="mallory"),
    "twice": token_of,
    "none at all": lambda case: None,
    "revoked by `jti`": token_of,
    "of a revoked user": token_of,
    "of a time that is revoked": lambda case: token_of(case, iat=int(time.time()) - 100),
    "with the new key": lambda case: case.new.token(**CLAIMS),
    "with the old key": token_of,
}
REVOKED: dict[str, Callable[[], dict[str, Any]]] = {
    "revoked by `jti`": lambda: {"jti": CLAIMS["jti"]},
    "of a revoked user": lambda: {"user_id": "alice", "issued_before": instant(30)},
    "of a time that is revoked": lambda: {"issued_before": instant(-50)},
}


# ------------------------------------------------------------------ places


class Shown(NamedTuple):
    """What the server says to a token: in the table's words, and every byte of it."""

    answer: str
    text: str


async def shown(case: Case, server: Server, token: str | None) -> Shown:
    """Shows the token in the row's place."""
    place = case.row.place
    if place == "action":
        async with json_client(server) as client:
            return said(await client.ask("authenticate", token=token))
    if place == "renewal":
        async with json_client(server, token_of(case)) as client:
            answer = said(await client.ask("authenticate", token=token))
            await client.quiet()  # a bad one changes nothing: the client is still who it was
            assert list(server.users) == ["alice"]
            return answer
    count = 2 if case.row.token == "twice" else 1
    target, lines = "/ws", []
    if token is not None:
        match place:
            case "header":
                lines = [f"Authorization: Bearer {token}"] * count
            case "subprotocol":
                lines = [f"Sec-WebSocket-Protocol: heartwire.bearer, {token}"] * count
            case "cookie":
                lines = ["Origin: http://127.0.0.1", *[f"Cookie: session={token}"] * count]
            case "query":
                target = "/ws?" + "&".join([f"token={token}"] * count)
    async with raw_peer(server) as peer:
        peer.send(handshake(target, *lines))
        reply = await peer.answer()
    return Shown("101" if reply.status == 101 else f"{reply.status} {reply.json['code']}", str(reply))


def said(answer: dict[str, Any]) -> Shown:
    word = "error " + answer["data"]["code"] if answer["event"] == "error" else answer["event"]
    return Shown(word, str(answer))


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row[:4]) for row in ROWS])
async def test_row(
    row: Row, make: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "heartwire")
    case = Case(row, make, tmp_path)
    token = TOKENS[row.token](case)
    async with case.running() as server:
        if row.token in REVOKED:
            assert (await shown(case, server, token)).answer in ("101", "authenticated")
            async with api_of(server) as api:
                await api.post("/api/tokens/revoke", REVOKED[row.token]())
        answer, text = await shown(case, server, token)
        assert answer == row.answer
        async with api_of(server) as api:
            metrics = (await api.call("GET", "/metrics")).body.decode()
            told = f"{text} {metrics} {await api.get('/api/clients')}"
    status, _, code = answer.partition(" ")
    if status == "error":
        assert f'heartwire_errors_total{{code="{code}"}} 1.0' in metrics
    elif code:
        assert f'heartwire_handshake_refusals_total{{code="{code}",status="{status}"}} 1.0' in metrics
        assert caplog.messages.count(f"refused: {answer}, from 127.0.0.1") == 1
    if token is not None:
        signature = token.split(".")[2]
        for place, content in (("what the server answers", told), ("the log", caplog.text)):
            assert token not in content, place
            assert not signature or signature not in content, place
    assert SECRET not in caplog.text


def instant(seconds_from_now: float) -> str:
    """In RFC 3339. Clocks may differ, so that half a minute ahead is accepted."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds_from_now))


PLACES = ("header", "subprotocol", "cookie", "query", "action", "renewal")
KEY_SOURCES = ("secret", "PEM", "JWKS URL", "JWKS file")
FAILURES = (
    "signed with another key", "`alg` none", "expired", "not valid yet", "for another audience",
    "from another issuer",
)  # fmt: skip
CONFUSIONS = {"HS256 with the public key as secret", "RS256 with a key of its own in the header"}


def test_the_table_leaves_nothing_out() -> None:
    """Every algorithm, source, place and failure of this file has a row, and no row stands there twice."""
    assert {row.algorithm for row in ROWS} == {"default", *HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS}
    assert {row.token for row in ROWS} == set(TOKENS)
    assert {row.place for row in ROWS} == set(PLACES)
    assert set(PUBLISHING) < {row.source for row in ROWS}
    assert [row for row, count in Counter(row[:4] for row in ROWS).items() if count > 1] == []


def test_each_failure_is_tried_in_each_place_with_each_source_and_algorithm() -> None:
    """In pairs: a place that forgot a check, or a source whose keys skip one, is seen."""
    placed = {(row.token, row.place) for row in ROWS}
    sourced = {(row.token, row.source) for row in ROWS}
    signed = {(row.token, row.algorithm) for row in ROWS}
    assert not {(token, place) for token in ("good", *FAILURES) for place in PLACES} - placed
    assert not {(token, source) for token in ("good", *FAILURES) for source in KEY_SOURCES} - sourced
    algorithms = (*HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS)
    for token in ("good", "signed with another key", "expired"):
        assert not {(token, algorithm) for algorithm in algorithms} - signed
    for which, all_of_them in ((1, KEY_SOURCES), (2, PLACES)):
        confused = {row[which] for row in ROWS if row.token in CONFUSIONS}
        assert not set(all_of_them) - confused
    unknown = {row.place for row in ROWS if row.token == "with an unknown `kid`" and "JWKS" in row.source}
    assert unknown == set(PLACES)
    revoked = {row.place for row in ROWS if row.token in REVOKED}
    assert revoked == set(PLACES) - {"renewal"}  # whose connection is closed by then
    for state in PUBLISHING.keys() - {"JWKS URL", "JWKS URL and secret"}:
        ways = {"action" if row.place in ("action", "renewal") else "handshake"
                for row in ROWS if row.source == state}  # fmt: skip
        assert ways == {"action", "handshake"}, state
