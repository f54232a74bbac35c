# The private epoll of one event loop. See reactor.pyx.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from heartwire._core.connection cimport Connection
from heartwire._core.engine cimport Engine
from heartwire._core.link cimport Link, Sink
from heartwire._core.linux cimport epoll_event


cdef class Reactor(Link):
    cdef Engine engine              # owned
    cdef Sink sink                  # owned: given to every connection accepted here
    cdef int epfd                   # owned: closed by close()
    cdef int pid                    # of the process that made epfd: a fork's child must not use it
    cdef set listeners              # descriptors, borrowed from their socket objects
    cdef PyObject **slots           # owned: one reference for each connection, NULL where free
    cdef uint32_t *generations      # owned: of each slot; 0 is never used
    cdef uint32_t *free_slots       # owned: a stack
    cdef uint32_t capacity
    cdef uint32_t free_count
    cdef epoll_event *events        # owned: one batch
    cdef readonly bint starved      # out of descriptors: the listeners pause

    cdef bint grow(self) noexcept
    cdef void accept_burst(self, int listener) noexcept
    cdef Connection add(self, int fd)
    cdef void readable(self, Connection conn) noexcept
    cdef void forget(self, Connection conn) noexcept
