"""The shortcut for ordinary upgrade requests: see csrc/head.h.

Whatever it does not know, `heartwire.http_head` judges.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t

from heartwire._core.csrc cimport hw_head, hw_head_read, hw_span

__all__ = ["OrdinaryHead", "read_ordinary_head"]


cdef object text(const char *p, hw_span span):
    return PyUnicode_DecodeASCII(p + span.at, span.len, NULL) if span.len else None


cdef class OrdinaryHead:
    """What an ordinary upgrade request says. Absent fields are None."""

    cdef readonly str path, host, key, origin, bearer, query_token, user_agent
    cdef readonly bint has_cookie, has_extensions


def read_ordinary_head(bytes head not None):
    """Reads a whole request head in one pass.

    Returns:
        OrdinaryHead, or None if the request is unusual in any way (which says nothing against it).
    """
    cdef hw_head found
    cdef OrdinaryHead result
    cdef const char *p = PyBytes_AS_STRING(head)
    if not hw_head_read(<const uint8_t *>p, PyBytes_GET_SIZE(head), &found):
        return None
    result = OrdinaryHead.__new__(OrdinaryHead)
    result.path = text(p, found.path)
    result.host = text(p, found.host)
    result.key = text(p, found.key)
    result.origin = text(p, found.origin)
    result.bearer = text(p, found.bearer)
    result.query_token = text(p, found.query_token)
    result.user_agent = text(p, found.user_agent)
    result.has_cookie = found.cookie.at != 0
    result.has_extensions = found.extensions
    return result
