# Calls that other threads leave for the loop's. See mailbox.pyx.


# What the GIL is on the other builds: PyMutex where there is none, and nothing where there is.
cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    typedef PyMutex hw_lock;
    #define hw_lock_take(lock) PyMutex_Lock(lock)
    #define hw_lock_give(lock) PyMutex_Unlock(lock)
    #else
    typedef char hw_lock;
    #define hw_lock_take(lock) ((void)(lock))
    #define hw_lock_give(lock) ((void)(lock))
    #endif
    """
    ctypedef struct Lock "hw_lock":
        pass
    void take "hw_lock_take"(Lock *lock) noexcept
    void give "hw_lock_give"(Lock *lock) noexcept


cdef enum:
    MAIL_CLOSED = 0
    MAIL_LEFT = 1   # and somebody has been told to look
    MAIL_FIRST = 2  # and the owner must be woken


cdef class Mailbox:
    cdef object calls                   # collections.deque of (callable, args)
    cdef Lock lock                      # held to change `calls` together with the next two
    cdef bint told                      # the owner was woken and has not looked yet
    cdef bint closed

    cdef int leave(self, tuple call) except -1
    cdef Py_ssize_t look(self) noexcept
    cdef bint again(self) noexcept
    cdef void close(self) noexcept
