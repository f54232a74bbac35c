# From a text payload to what the application asked for. See json_reader.pyx.

from libc.stdint cimport uint8_t

from heartwire._core.connection cimport Connection
from heartwire._core.link cimport Sink


cdef class PayloadView:
    cdef uint8_t *data          # borrowed: the receive buffer, during one decode
    cdef Py_ssize_t size
    cdef Py_ssize_t exports


cdef class JsonReader(Sink):
    cdef PayloadView view               # the text under way
    cdef PayloadView part               # its `data`, where no decoder read it
    cdef public object decode           # bytes-like -> any JSON value
    cdef public object decode_envelope  # bytes-like -> envelope object
    cdef public object raw              # bytes-like -> what `data` of an envelope is; None: always decoded
    cdef public object encode           # value -> bytes
    cdef public object message_handler  # (owner, value), or None
    cdef public object text_handler     # (owner, str): then text is not JSON
    cdef public object binary_handler   # (owner, bytes), or None
    cdef public object invalid          # the exception class of a value of the wrong type
    cdef public unsigned int max_depth
    cdef public unsigned int long_text  # bytes from which on it pays not to decode `data`

    cdef object read(self, object decoder, uint8_t *p, size_t n)
    cdef int deliver(self, Connection conn, object handler, object value) except -1
    cdef int read_envelope(self, Connection conn, uint8_t *p, size_t n) except -1
    cdef bint read_around(self, Connection conn, uint8_t *p, size_t n, int *answer) except -1
    cdef object envelope_around(self, uint8_t *p, size_t n)
    cdef int act(self, Connection conn, object envelope, uint8_t *p, size_t n) except -1
    cdef int done(self, PayloadView view, int answer) except -1
