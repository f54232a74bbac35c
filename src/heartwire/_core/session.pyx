"""The part of a Client that is hot: compact fields, and sending without a Python frame in between.

One object of a fixed size per client, untracked by the cyclic collector (a third of a Python server's
handshake cost is the collector walking live connections): its cycle with the connection is broken when
the connection's end was told.
"""

cimport cython

from heartwire._core.connection cimport Connection
from heartwire._core.csrc cimport HW_OP_BINARY, HW_OP_TEXT
from heartwire._core.json_reader cimport JsonReader

__all__ = ["Session"]


cdef extern from "Python.h":
    bint PyObject_IS_GC(object o)
    void PyObject_GC_UnTrack(object o)


@cython.no_gc
cdef class Session:
    """One client's identity and its way out."""

    def __cinit__(self, Connection connection, *args, **kwargs):
        self.connection = connection
        if PyObject_IS_GC(self):
            # A Python subclass is tracked whatever its base says. Its references are dropped by hand.
            PyObject_GC_UnTrack(self)

    def send_json(self, value):
        """Sends one value as compact JSON, key order kept. From any thread; never blocks.

        Raises:
            ConnectionClosed: the connection is no longer open.
            TypeError: the value cannot be written as JSON.
        """
        self.connection.send(HW_OP_TEXT, (<JsonReader>self.connection.sink).encode(value))

    def send_text(self, str text):
        """Sends a text message. From any thread; never blocks.

        Raises:
            ConnectionClosed: the connection is no longer open.
        """
        self.connection.send(HW_OP_TEXT, text)

    def send_bytes(self, data):
        """Sends a binary message (bytes-like). From any thread; never blocks.

        Raises:
            ConnectionClosed: the connection is no longer open.
        """
        self.connection.send(HW_OP_BINARY, data)

    def ping(self):
        """Sends a ping now; nothing happens if the connection is no longer open. From any thread."""
        self.connection.ping()

    @property
    def is_connected(self):
        """True while messages can be sent. Any thread."""
        return self.connection.is_open

    @property
    def rtt_ms(self):
        """Round-trip time of the last answered ping in milliseconds; None before the first."""
        return self.connection.rtt_ms

    @property
    def remote_address(self):
        """(host, port) of the peer; ("", 0) on a Unix socket."""
        return self.connection.remote_address

    @property
    def connected_at(self):
        """Unix time of the upgrade."""
        return self.connection.opened_at

    @property
    def last_seen(self):
        """Unix time of the last byte received."""
        return self.connection.last_seen
