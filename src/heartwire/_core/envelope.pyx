"""The envelope of the server's events: id, instant and short texts, written in one go.

An event that passes a client's message on needs nothing else from us, and is what a busy server writes most
(docs/experiments/native-envelope.md).
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII

from heartwire._core.csrc cimport (
    HW_HEX_MOST,
    HW_INSTANT_LEN,
    hw_counter,
    hw_counter_next,
    hw_text_is_plain,
    hw_unix_us,
    hw_write_hex,
    hw_write_instant,
)

__all__ = ["EventWriter", "instant_text"]


cdef enum:
    NODE_MOST = 32
    HEAD_MOST = 1024  # a longer one is written by whoever asked


cdef struct Line:
    char *at
    char *end
    bint fits


cdef inline void put(Line *line, const char *p, Py_ssize_t n) noexcept:
    if line.end - line.at < n:
        line.fits = False
        return
    memcpy(line.at, p, n)
    line.at += n


cdef inline int put_text(Line *line, const char *key, Py_ssize_t key_len, object text) except -1:
    """Writes one member whose value is a text, unless it is None."""
    cdef Py_ssize_t n
    cdef const char *p
    if text is None:
        return 0
    p = PyUnicode_AsUTF8AndSize(text, &n)
    if not hw_text_is_plain(<const uint8_t *>p, n):
        line.fits = False
        return 0
    put(line, key, key_len)
    put(line, p, n)
    put(line, b'"', 1)
    return 0


cdef class EventWriter:
    """Ids, instants and envelopes of one process. Any thread.

    Args:
        node: begins every id: ASCII, at most 32 characters, different in every process that ever runs.
    """

    cdef hw_counter counter
    cdef char node[NODE_MOST]
    cdef size_t node_len

    def __cinit__(self, str node not None):
        cdef bytes text = node.encode("ascii")
        if len(text) > NODE_MOST:
            raise ValueError(f"a node's name has at most {NODE_MOST} characters")
        memcpy(self.node, <const char *>text, len(text))
        self.node_len = len(text)

    cdef size_t write_id(self, char *out) noexcept:
        memcpy(out, self.node, self.node_len)
        return self.node_len + hw_write_hex(out + self.node_len, hw_counter_next(&self.counter))

    def next_id(self):
        """An id that no other call returns: the node and a number that grows, in hexadecimal."""
        cdef char text[NODE_MOST + HW_HEX_MOST]
        return PyUnicode_DecodeASCII(text, self.write_id(text), NULL)

    def timestamp(self):
        """The instant as RFC 3339 UTC with milliseconds and `Z`."""
        return instant_text(hw_unix_us() // 1000)

    def head(self, str event not None, channel, user_id, username, client_id):
        """Writes an event that has no `data`, with an id and an instant of its own.

        Args:
            event: its name.
            channel, user_id, username, client_id: str, or None to leave it out.
        Returns:
            The JSON object as bytes; None if a text has something to escape or it is longer than 1 KiB:
            write it another way then.
        Raises:
            UnicodeEncodeError: a text has lone surrogates.
        """
        cdef char text[HEAD_MOST]
        cdef char identity[NODE_MOST + HW_HEX_MOST]
        cdef char instant[HW_INSTANT_LEN]
        cdef Line line
        line.at = text
        line.end = text + HEAD_MOST
        line.fits = True
        put(&line, b'{"id":"', 7)
        put(&line, identity, self.write_id(identity))
        put_text(&line, b'","event":"', 11, event)
        put_text(&line, b',"channel":"', 12, channel)
        put_text(&line, b',"user_id":"', 12, user_id)
        put_text(&line, b',"username":"', 13, username)
        put_text(&line, b',"client_id":"', 14, client_id)
        hw_write_instant(instant, hw_unix_us() // 1000)
        put(&line, b',"timestamp":"', 14)
        put(&line, instant, HW_INSTANT_LEN)
        put(&line, b'"}', 2)
        return PyBytes_FromStringAndSize(text, line.at - text) if line.fits else None


def instant_text(uint64_t unix_ms):
    """Unix milliseconds (of the years 1970 to 9999) as RFC 3339 in UTC, such as 2026-11-26T06:20:11.042Z."""
    cdef char text[HW_INSTANT_LEN]
    hw_write_instant(text, unix_ms)
    return PyUnicode_DecodeASCII(text, HW_INSTANT_LEN, NULL)
