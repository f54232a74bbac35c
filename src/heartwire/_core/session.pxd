# The part of a Client that is hot. See session.pyx.

cimport cython
from heartwire._core.connection cimport Connection


@cython.no_gc
cdef class Session:
    cdef readonly Connection connection
    cdef public object id             # str
    cdef public object credentials    # who it is; None while anonymous
    cdef public object memberships    # dict of channel -> metadata, None while in no channel
    cdef public object state          # the application's own; cleared after on_disconnect
    cdef public object user_agent     # str or None
    cdef public object request        # during on_connect, or for good with keep_request
    cdef public object reader         # asyncio.Future of the read_json under way, bytes left unread, or None
    cdef public object running        # asyncio.Task of the handler under way, or None
