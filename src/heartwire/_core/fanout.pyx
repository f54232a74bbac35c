"""One frame to many connections: encoded once, shared by every queue."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from heartwire._core.connection cimport Connection
from heartwire._core.csrc cimport (
    HW_E_SLOW,
    HW_OK,
    HW_OP_BINARY,
    HW_OP_TEXT,
    HW_RSV1,
    hw_shared,
    hw_shared_drop,
    hw_shared_new,
    hw_zip,
    hw_zip_deflate,
)
from heartwire._core.engine cimport Engine
from heartwire._core.session cimport Session

__all__ = ["Frame", "fan_out"]


cdef enum:
    WIDEST = 15  # bits of the window with which a broadcast is compressed
    DATA_KEY_LEN = 8

cdef const char *DATA_KEY = b',"data":'


cdef class Frame:
    """One encoded message. Immutable; queues that still hold it keep its bytes alive without this object.

    Args:
        payload: the message's bytes; valid UTF-8 if it is a text.
        binary: a binary message instead of a text.
        data: bytes-like JSON that becomes `data`, the last member of the object that payload then is. It is
            copied once, to where all queues find it.
    """

    cdef hw_shared *shared  # owned: one reference
    cdef hw_shared *packed  # owned: one reference; for whoever keeps no context. NULL: not tried, or no gain
    cdef const uint8_t *payload  # borrowed: lies in `shared`
    cdef size_t size
    cdef bint tried
    cdef uint8_t opcode

    def __cinit__(self, bytes payload not None, bint binary=False, data=None):
        cdef Py_buffer view
        self.opcode = HW_OP_BINARY if binary else HW_OP_TEXT
        if data is None:
            memcpy(self.make(PyBytes_GET_SIZE(payload)), PyBytes_AS_STRING(payload), self.size)
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.carry(payload, <const uint8_t *>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    cdef uint8_t *make(self, size_t n) except NULL:
        """Makes the frame of n payload bytes; returns where they belong."""
        cdef uint8_t *at
        self.shared = hw_shared_new(self.opcode, 0, n, &at)
        if self.shared == NULL:
            raise MemoryError
        self.payload = at
        self.size = n
        return at

    cdef int carry(self, bytes envelope, const uint8_t *data, size_t n) except -1:
        """The payload is the envelope, whose closing brace makes room for `"data"`."""
        cdef Py_ssize_t head = PyBytes_GET_SIZE(envelope) - 1
        cdef uint8_t *at
        if head < 2 or PyBytes_AS_STRING(envelope)[head] != b"}":
            raise ValueError("only an object that has a member can carry data")
        at = self.make(head + DATA_KEY_LEN + n + 1)
        memcpy(at, PyBytes_AS_STRING(envelope), head)
        at += head
        memcpy(at, DATA_KEY, DATA_KEY_LEN)
        at += DATA_KEY_LEN
        memcpy(at, data, n)
        at[n] = b"}"
        return 0

    def __dealloc__(self):
        hw_shared_drop(self.shared)
        if self.packed != NULL:
            hw_shared_drop(self.packed)

    cdef int queue_for(self, Connection conn) noexcept:
        """Queues it for one connection, compressed as that connection reads it. Returns a HW_ code."""
        cdef const uint8_t *p = self.payload
        cdef size_t n = self.size
        if conn.zip == NULL or n < conn.sink.settings.deflate_from:
            return conn.queue_shared(self.shared)
        # A message of 2^bits bytes cannot refer further back than a window of so many bits reaches.
        if conn.zip.out_takeover or (conn.zip.out_bits < WIDEST and n > <size_t>1 << conn.zip.out_bits):
            return conn.queue_deflated(self.opcode, p, n)
        if not self.tried:
            self.tried = True
            self.pack(&conn.engine.zip, p, n)
        return conn.queue_shared(self.shared if self.packed == NULL else self.packed)

    cdef void pack(self, hw_zip *zip, const uint8_t *p, size_t n) noexcept:
        cdef const uint8_t *out
        cdef uint8_t *at
        cdef size_t size
        if hw_zip_deflate(zip, NULL, p, n, &out, &size):
            self.packed = hw_shared_new(self.opcode, HW_RSV1, size, &at)
            if self.packed != NULL:
                memcpy(at, out, size)


def fan_out(Frame frame not None, dict members not None, Session skip=None):
    """Queues the frame for every member, in the dict's order. Loop thread only.

    Members that may not hear broadcasts yet (`special` has bit 1: not authenticated) are passed over.
    A slow one is closed with 4503. The sends themselves are sliced by the engine, after the batch.

    Args:
        members: Session -> anything.
        skip: a member that gets nothing.
    Returns:
        How many connections it was queued for.
    """
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef Session member
    cdef Connection conn
    cdef int rc
    cdef size_t count = 0
    cdef list slow = None
    cdef Engine engine = None
    while PyDict_Next(members, &position, &key, NULL):
        member = <Session>key
        if member is skip:
            continue
        conn = member.connection
        if conn.special & 1:
            continue
        rc = frame.queue_for(conn)
        if rc == HW_OK:
            count += 1
            engine = conn.engine
        elif rc == HW_E_SLOW:  # closing changes `members`: after the walk
            if slow is None:
                slow = []
            slow.append(conn)
    if slow is not None:
        for conn in slow:
            if conn.offer() and conn.queue_shared(frame.shared) == HW_OK:
                count += 1
                engine = conn.engine
            else:
                conn.slow()
    if engine is not None:
        engine.note_fanout(count)
    return count
