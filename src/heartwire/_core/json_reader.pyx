"""From a text payload to what the application asked for, decoded where it lies.

The decoders are injected (the server gives msgspec's), so the core imports without them. A payload without
a key "action" goes straight to the message handler; one that may have it is read as an envelope. The `data`
of a long one is measured where it lies, and the decoder sees `[]` instead (docs/experiments/uncut-data.md).
Views on the receive buffer end with the call that made them (I11): one that is still held afterwards, a
`Raw` field of a typed message, makes the payload be decoded again from a copy.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from heartwire._core.connection cimport Connection
from heartwire._core.csrc cimport HW_JSON_ACTION, HW_JSON_DEEP, HW_JSON_HEAD_MOST, hw_json_data, hw_jsonscan
from heartwire._core.engine cimport Endpoint
from heartwire._core.link cimport HOLD, Sink

__all__ = ["JsonReader", "PayloadView"]


cdef class PayloadView:
    """The payload under way as a buffer that decoders accept; counts who looks at it."""

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1


cdef extern from "Python.h":
    int PyBuffer_FillInfo(Py_buffer *view, object exporter, void *buf, Py_ssize_t size, int readonly,
                          int flags) except -1


cdef class JsonReader(Sink):
    """A Sink that reads messages as JSON. The server subclasses it; see the attributes in the .pxd."""

    def __cinit__(self, *args, **kwargs):
        self.view = PayloadView.__new__(PayloadView)
        self.part = PayloadView.__new__(PayloadView)
        self.max_depth = 128
        self.long_text = 1024
        self.invalid = ValueError

    cdef object read(self, object decoder, uint8_t *p, size_t n):
        """Decodes n bytes at p. The result holds no view on them."""
        cdef PayloadView view = self.view
        view.data = p
        view.size = n
        value = decoder(view)
        if view.exports:
            # Somebody holds on to the buffer. Nothing was given away yet: let go and decode a copy.
            value = None
            self.view = PayloadView.__new__(PayloadView) if view.exports else view
            value = decoder(PyBytes_FromStringAndSize(<char *>p, n))
        return value

    cdef int deliver(self, Connection conn, object handler, object value) except -1:
        """Calls the application. HOLD if it goes on asynchronously."""
        cdef object owner = conn.owner
        try:
            result = handler(owner, value)
        except Exception as error:
            self.on_handler_failure(owner, error)
            return 0
        if result is None:
            conn.errors_in_a_row = 0
            return 0
        return HOLD if self.on_result(owner, result) else 0

    cdef int text(self, Endpoint endpoint, uint8_t *p, size_t n) noexcept:
        cdef Connection conn = <Connection>endpoint
        cdef int found
        try:
            if self.text_handler is not None and not conn.special:
                return self.deliver(conn, self.text_handler, PyUnicode_DecodeUTF8(<char *>p, n, NULL))
            if n >= self.long_text and not conn.special and self.read_around(conn, p, n, &found):
                return found
            found = hw_jsonscan(p, n, self.max_depth)
            if found == HW_JSON_DEEP and (self.text_handler is None or conn.special & 1):
                self.on_bad_json(conn.owner, f"nested deeper than {self.max_depth}")
                return 0
            if conn.special:
                data = PyBytes_FromStringAndSize(<char *>p, n)
                return HOLD if self.on_special(conn.owner, data, True) else 0
            if found == HW_JSON_ACTION:
                return self.read_envelope(conn, p, n)
            try:
                value = self.read(self.decode, p, n)
            except Exception as error:  # msgspec raises RecursionError and UnicodeDecodeError too
                self.on_bad_json(conn.owner, describe(error))
                return 0
            if self.message_handler is not None:
                return self.deliver(conn, self.message_handler, value)
            return HOLD if self.on_unclaimed(conn.owner, value) else 0
        except Exception as error:
            self.on_failure(conn, error)
            return 0

    cdef int read_envelope(self, Connection conn, uint8_t *p, size_t n) except -1:
        """A message that may name an action. The envelope's raw `data` is a view that ends with this call."""
        cdef PayloadView view
        cdef int held
        view = self.view = free_again(self.view)
        view.data = p
        view.size = n
        try:
            envelope = self.decode_envelope(view)
        except self.invalid:
            envelope = None
        except Exception as error:
            self.on_bad_json(conn.owner, describe(error))
            return 0
        if envelope is None or not self.claims(envelope):
            envelope = None
            try:
                value = self.read(self.decode, p, n)
            except Exception as error:
                self.on_bad_json(conn.owner, describe(error))
                return 0
            if self.message_handler is not None:
                return self.deliver(conn, self.message_handler, value)
            return HOLD if self.on_unclaimed(conn.owner, value) else 0
        held = self.act(conn, envelope, p, n)
        envelope = None
        return self.done(view, held)

    cdef bint read_around(self, Connection conn, uint8_t *p, size_t n, int *answer) except -1:
        """As `read_envelope`, for a text whose `data` needs no decoder. False: it was not read."""
        cdef PayloadView view
        envelope = self.envelope_around(p, n) if self.raw is not None else None
        if envelope is None:
            return False
        view = self.view
        answer[0] = self.act(conn, envelope, p, n)
        envelope = None
        self.done(view, answer[0])
        return True

    cdef object envelope_around(self, uint8_t *p, size_t n):
        """The envelope of a text in which `data` is long, and needs no decoder. None: read it the other way,
        also for what is wrong with it."""
        cdef PayloadView part
        cdef size_t size
        cdef size_t at = hw_json_data(p, n, self.max_depth, &size)
        cdef size_t rest
        cdef bytes text
        cdef char *to
        cdef Py_buffer held
        cdef bint ours
        if at == 0 or n - at - size > HW_JSON_HEAD_MOST:
            return None
        rest = n - at - size
        text = PyBytes_FromStringAndSize(NULL, at + 2 + rest)
        to = PyBytes_AS_STRING(text)
        memcpy(to, p, at)
        memcpy(to + at, b"[]", 2)  # no number: digits behind the value would make another one of it
        memcpy(to + at + 2, p + at + size, rest)
        if hw_jsonscan(<uint8_t *>to, at + 2 + rest, self.max_depth) != HW_JSON_ACTION:
            return None
        try:
            envelope = self.decode_envelope(text)
        except Exception:
            return None
        data = envelope.data
        if not PyObject_CheckBuffer(data) or not self.claims(envelope):
            return None
        PyObject_GetBuffer(data, &held, PyBUF_SIMPLE)
        ours = <char *>held.buf == to + at  # else another `data` came behind it, and counts
        PyBuffer_Release(&held)
        if not ours:
            return None
        self.view = free_again(self.view)
        part = self.part = free_again(self.part)
        part.data = p + at
        part.size = size
        envelope.data = self.raw(part)
        return envelope

    cdef int act(self, Connection conn, object envelope, uint8_t *p, size_t n) except -1:
        """Hands an action to the server. The caller lets go of the envelope, and then calls `done`."""
        cdef PayloadView view = self.view
        view.data = p
        view.size = n
        return HOLD if self.on_action(conn.owner, envelope, view) else 0

    cdef int done(self, PayloadView view, int answer) except -1:
        """The answer again, once nobody looks at the receive buffer any more. `view` is the one of `act`:
        reading a typed message may have put another in its place."""
        if view.exports or self.part.exports:
            self.view = PayloadView.__new__(PayloadView)
            self.part = PayloadView.__new__(PayloadView)
            raise AssertionError("an action kept a view of the receive buffer")
        return answer

    cdef int binary(self, Endpoint endpoint, uint8_t *p, size_t n) noexcept:
        cdef Connection conn = <Connection>endpoint
        try:
            if self.binary_handler is None:
                conn.close(1003, "binary messages are not accepted", "unsupported_data")
                return 0
            data = PyBytes_FromStringAndSize(<char *>p, n)
            if conn.special & 1:
                return HOLD if self.on_special(conn.owner, data, False) else 0
            return self.deliver(conn, self.binary_handler, data)
        except Exception as error:
            self.on_failure(conn, error)
            return 0

    def read_typed(self, decoder, PayloadView view):
        """Decodes the payload under way with another decoder, inside `on_action`. Holds no view."""
        return self.read(decoder, view.data, view.size)

    def handle_text(self, owner, bytes data):
        """Handles a text message again that `on_special` had kept. Not inside of another message.

        Returns:
            True: it goes on asynchronously, and reading is held.
        """
        own = bytearray(data)
        return self.text(owner.connection, <uint8_t *>PyByteArray_AS_STRING(own), len(own)) == HOLD

    # The server's part.

    def claims(self, envelope):
        """Is there an action for it?"""
        return False

    def on_action(self, client, envelope, view):
        """A message that names an action. True: reading is held until `resume()`."""

    def on_special(self, client, data, is_text):
        """A message of a connection whose `special` is set: a text while it is read by hand, any while it has
        bit 1 (not authenticated yet)."""

    def on_unclaimed(self, client, value):
        """A JSON value that no action and no handler claims."""

    def on_result(self, client, result):
        """What a handler returned, not None. True: reading is held until `resume()`."""

    def on_bad_json(self, client, detail):
        """The text is not JSON, or too deep."""

    def on_handler_failure(self, client, error):
        """The application's handler raised."""


cdef PayloadView free_again(PayloadView view):
    """The view, or another if somebody still looks at it: what was raised by a failure may hold on to it."""
    return PayloadView.__new__(PayloadView) if view.exports else view


cdef str describe(error):
    """One line that says what is wrong with a text, without quoting it."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    return str(error) or type(error).__name__
