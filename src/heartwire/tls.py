"""TLS at the server itself: certificates, read again while it runs, and sockets that begin with a handshake.

Connections then go over asyncio transports; a terminating proxy in front keeps them in the epoll core
(docs/behind-a-proxy.md). Source: https://docs.python.org/3/library/ssl.html
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from heartwire.accepting import Listener
from heartwire.errors import ConfigError
from heartwire.proxies import TrustedProxies, header_bytes_to_come, read_proxy_header

if TYPE_CHECKING:
    from heartwire.config import ServerConfig
    from heartwire.refusals import Refusals
    from heartwire.transport import TransportLink

__all__ = ["ServerTls", "TlsListener"]

BUFFER: Final = 16 * 1024 + 512  # bytes of ciphertext in each direction: one record (RFC 8446 section 5.2)
GOODBYE_S: Final = 1.0  # for the peer's answer to our close_notify

Address = tuple[str, int]


class ServerTls:
    """The certificates of one server.

    Args:
        config: `tls_cert`, `tls_key`, `tls_client_ca`.
    Raises:
        ConfigError: a file cannot be read or used.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.context: ssl.SSLContext = _context(config)
        """For the next handshake; connections keep the one they began with."""

    def reload(self) -> None:
        """Reads the files again. Connections that are open do not notice.

        Raises:
            ConfigError: as at the beginning; what was loaded before stays.
        """
        self.context = _context(self._config)

    def switching_context(self) -> ssl.SSLContext:
        """For a listener that keeps one context: each handshake goes on with the one loaded last."""
        outer = _context(self._config)

        def switch(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            connection.context = self.context

        outer.sni_callback = switch  # called without a name too
        return outer


def _context(config: ServerConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    assert config.tls_cert is not None
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, _no_password)
    except ssl.SSLError:
        message = "not a certificate and its private key, both as PEM"
        raise ConfigError("tls_cert", message) from None
    except OSError as error:
        raise ConfigError("tls_cert", f"cannot read it or tls_key: {error.strerror}") from None
    if config.tls_client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed is not judged again, also where its authority was taken out meanwhile.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError:
            raise ConfigError("tls_client_ca", "not a file of certificates as PEM") from None
        except OSError as error:
            raise ConfigError("tls_client_ca", f"cannot read it: {error.strerror}") from None
    return context


def _no_password() -> NoReturn:  # without it OpenSSL would ask at the terminal
    raise ConfigError("tls_key", "the key is encrypted: store it without a password, readable for this user")


class TlsListener(Listener):
    """With TLS. A connection has its task until its handshake is over.

    Args:
        sock: listens, non-blocking.
        tls: the certificates.
        make_link: a protocol for the transport, given the peer's address, by a PROXY header or `accept`.
        timeout_s: for the PROXY header, and for the handshake.
        proxies: who begins with a PROXY header; None: nobody.
        refusals: hears of handshakes that failed.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ServerTls,
        make_link: Callable[[Address | None], TransportLink],
        *,
        timeout_s: float,
        proxies: TrustedProxies | None,
        refusals: Refusals,
    ) -> None:
        self._tls = tls
        self._make_link = make_link
        self._timeout_s = timeout_s
        self._proxies = proxies
        self._refusals = refusals
        self._connect = _connector()
        super().__init__(sock)

    async def _open(self, sock: socket.socket, peer: Address | None) -> None:
        address = peer or ("", 0)
        try:
            async with asyncio.timeout(self._timeout_s):
                told = await self._introduction(sock, address[0])
            await self._connect(
                self._loop, lambda: self._make_link(told or peer), sock, ssl=self._tls.context,
                ssl_handshake_timeout=self._timeout_s, ssl_shutdown_timeout=GOODBYE_S,
            )  # fmt: skip
        except OSError:  # ssl.SSLError, TimeoutError and ConnectionError among them
            self._refusals.count("closed", "tls_handshake", address)
            sock.close()
        except ValueError:  # after OSError: ssl.SSLCertVerificationError is both
            self._refusals.count("closed", "proxy_header", address)
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _introduction(self, sock: socket.socket, host: str) -> Address | None:
        """Reads the PROXY header of a trusted peer, and not a byte of what follows it."""
        if self._proxies is None or not self._proxies.trusts(host):
            return None
        received = b""
        while (header := read_proxy_header(received)) is None:
            part = await self._loop.sock_recv(sock, header_bytes_to_come(received))
            if not part:
                raise ValueError("it ended before its PROXY header")
            received += part
        return None if header.host is None else (header.host, header.port)


def _connector() -> Callable[..., Awaitable[Any]]:
    """The loop's `connect_accepted_socket`, or aiofastnet's where that is installed (docs/experiments)."""
    try:
        from aiofastnet import connect_accepted_socket
    except ImportError:
        return _connect
    return partial(connect_accepted_socket, ssl_incoming_bio_size=BUFFER, ssl_outgoing_bio_size=BUFFER)


def _connect(loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> Awaitable[Any]:
    return loop.connect_accepted_socket(*args, **options)
