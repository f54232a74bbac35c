"""One private epoll instance per event loop: the link of plain TCP and Unix sockets on Linux.

The loop knows one descriptor, `Reactor.fileno()`, and calls `on_ready` when anything is ready in it;
level-triggering brings the rest in the next turn when the budget of a wake-up is used up. An epoll event
carries slot and generation, so an event of a connection that was closed earlier in the same batch, or whose
descriptor was reused, finds a newer generation and is dropped (I6).
"""

import errno as _errno
from os import strerror

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close, getpid

from heartwire._core.connection cimport Connection
from heartwire._core.csrc cimport (
    HW_CLOSED,
    HW_READ_PAUSED,
    HW_WRITE_BLOCKED,
    hw_conn_recv,
    hw_state_has,
    hw_state_phase,
)
from heartwire._core.engine cimport Endpoint, Engine
from heartwire._core.link cimport Link, Sink
from heartwire._core.linux cimport *

__all__ = ["Reactor"]


cdef enum:
    BATCH = 512          # events of one wake-up
    BATCH_US = 2000      # and its time
    ROUNDS = 4           # receives of one connection in a batch, while they fill the buffer
    ACCEPTS = 64         # connections of one accept burst
    PAUSE_MS = 100       # of the listeners when descriptors run out


cdef void note_peer(Connection conn, sockaddr_storage *address) noexcept:
    """Keeps the peer's address in its compact form."""
    if address.ss_family == AF_INET:
        conn.peer_family = 4
        conn.peer_port = ntohs((<sockaddr_in *>address).sin_port)
        memcpy(conn.peer_address, &(<sockaddr_in *>address).sin_addr, 4)
    elif address.ss_family == AF_INET6:
        conn.peer_port = ntohs((<sockaddr_in6 *>address).sin6_port)
        conn.note_ipv6(<const uint8_t *>&(<sockaddr_in6 *>address).sin6_addr)


cdef class Reactor(Link):
    """Accepts, receives and sends for every connection of one loop. Loop thread only.

    Args:
        engine: the loop's engine.
        sink: receives what happens on the connections.
    """

    def __cinit__(self, Engine engine, Sink sink):
        self.engine = engine
        self.sink = sink
        self.listeners = set()
        self.pid = getpid()
        self.events = <epoll_event *>PyMem_RawMalloc(BATCH * sizeof(epoll_event))
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.events == NULL:
            raise MemoryError
        if self.epfd < 0:
            raise OSError(errno, strerror(errno))

    def __dealloc__(self):
        if self.epfd >= 0:
            close(self.epfd)
        PyMem_RawFree(self.slots)
        PyMem_RawFree(self.generations)
        PyMem_RawFree(self.free_slots)
        PyMem_RawFree(self.events)

    def fileno(self):
        """The descriptor for the loop's `add_reader(fd, reactor.on_ready)`."""
        return self.epfd

    def close(self):
        """Closes the epoll instance. Remove the reader first; connections must be closed by then."""
        if self.epfd >= 0:
            close(self.epfd)
            self.epfd = -1

    # ---------------------------------------------------------------- the table

    cdef bint grow(self) noexcept:
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else 256
        cdef uint32_t i
        cdef void *slots = PyMem_RawRealloc(self.slots, capacity * sizeof(PyObject *))
        if slots != NULL:
            self.slots = <PyObject **>slots
        cdef void *generations = PyMem_RawRealloc(self.generations, capacity * sizeof(uint32_t))
        if generations != NULL:
            self.generations = <uint32_t *>generations
        cdef void *free_slots = PyMem_RawRealloc(self.free_slots, capacity * sizeof(uint32_t))
        if free_slots != NULL:
            self.free_slots = <uint32_t *>free_slots
        if slots == NULL or generations == NULL or free_slots == NULL:
            return False
        i = capacity
        while i > self.capacity:  # the lowest slot ends on top of the stack
            i -= 1
            self.slots[i] = NULL
            self.generations[i] = 1
            self.free_slots[self.free_count] = i
            self.free_count += 1
        self.capacity = capacity
        return True

    cdef Connection add(self, int fd):
        """Makes the connection of an open non-blocking socket and watches it. Owns fd from here on."""
        cdef uint32_t slot
        cdef epoll_event event
        cdef Connection conn
        if self.free_count == 0 and not self.grow():
            close(fd)
            raise MemoryError
        slot = self.free_slots[self.free_count - 1]
        try:
            conn = Connection(self.engine, self.sink, self, fd, slot, self.generations[slot])
        except BaseException:
            close(fd)
            raise
        event.events = EPOLLIN | EPOLLRDHUP
        event.data.u64 = <uint64_t>self.generations[slot] << 32 | slot
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) < 0:
            close(fd)
            raise OSError(errno, strerror(errno))
        conn.armed_read = True
        self.free_count -= 1
        Py_INCREF(conn)
        self.slots[slot] = <PyObject *>conn
        return conn

    cdef void forget(self, Connection conn) noexcept:
        """Takes the connection out of epoll and the table; its slot's next tenant has a new generation."""
        cdef uint32_t slot = conn.c.slot
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, conn.c.fd, NULL)
        if self.slots[slot] == <PyObject *>conn:
            self.slots[slot] = NULL
            self.generations[slot] += 1
            if self.generations[slot] == 0:
                self.generations[slot] = 1
            self.free_slots[self.free_count] = slot
            self.free_count += 1
            Py_DECREF(conn)

    def adopt(self, int fd, bytes received, address_told=None):
        """Takes over an open socket whose request head was read by another server (HTTP keep-alive).

        Args:
            fd: a non-blocking connected socket; owned by the reactor from here on.
            received: what was read from it, the request head first.
            address_told: (host, port) of the peer, where a PROXY header said it.
        """
        cdef Connection conn = self.add(fd)
        cdef sockaddr_storage address
        cdef socklen_t size = sizeof(address)
        if getpeername(fd, <sockaddr *>&address, &size) == 0:
            note_peer(conn, &address)
        if address_told is not None:
            conn.set_peer(*address_told)
        conn.introduced = True
        conn.receive(<uint8_t *><const uint8_t *>received, len(received))

    # ---------------------------------------------------------------- listening

    def listen(self, int fd):
        """Accepts from a listening non-blocking socket."""
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint32_t>fd
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, strerror(errno))
        self.listeners.add(fd)

    def unlisten(self, int fd):
        """Accepts no more from it. The socket stays open."""
        self.listeners.discard(fd)
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, NULL)

    cdef void accept_burst(self, int listener) noexcept:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd
        cdef int _i
        cdef Connection conn
        for _i in range(ACCEPTS):
            size = sizeof(address)
            fd = accept4(listener, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self.starve()
                elif errno in (EINTR, ECONNABORTED, EPROTO):
                    continue
                return
            try:
                conn = self.add(fd)
                note_peer(conn, &address)
            except Exception as error:
                self.engine.on_error(error)

    def starve(self):
        """Out of descriptors: the listeners leave epoll for a while, and readiness says so."""
        if not self.starved:
            self.starved = True
            for fd in self.listeners:
                epoll_ctl(self.epfd, EPOLL_CTL_DEL, fd, NULL)
            self.engine.call_later(PAUSE_MS / 1000.0, self.recover)  # not 1000: C would make 0 of it

    def recover(self):
        """Ends a pause of the listeners."""
        cdef epoll_event event
        cdef bint outermost
        self.starved = False
        if self.epfd < 0:
            return
        for fd in self.listeners:
            event.events = EPOLLIN
            event.data.u64 = <uint32_t>fd
            epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &event)
        # At once, so that readiness does not say 200 for a moment while there is still none.
        outermost = self.engine.begin()
        for fd in tuple(self.listeners):
            if not self.starved:
                self.accept_burst(fd)
        self.engine.end(outermost)

    # ---------------------------------------------------------------- a wake-up

    def on_ready(self):
        """Serves what is ready: at most BATCH events and BATCH_US, then back to the loop."""
        cdef int n
        cdef int i
        cdef uint32_t mask
        cdef uint32_t slot
        cdef uint32_t generation
        cdef uint64_t start
        cdef Connection conn
        cdef Engine engine = self.engine
        cdef bint outermost
        if self.pid != getpid():
            return  # a forked child: this epoll instance is its parent's
        outermost = engine.begin()
        if engine.overrun and engine.dirty.count:
            engine.end(outermost)  # sends first; level-triggering brings the events again
            return
        n = epoll_wait(self.epfd, self.events, BATCH, 0)
        start = engine.now_us
        for i in range(n):
            slot = <uint32_t>self.events[i].data.u64
            generation = <uint32_t>(self.events[i].data.u64 >> 32)
            mask = self.events[i].events
            if generation == 0:
                self.accept_burst(<int>slot)
                continue
            if slot >= self.capacity or self.generations[slot] != generation or self.slots[slot] == NULL:
                continue  # closed earlier in this batch
            conn = <Connection>self.slots[slot]
            if mask & EPOLLOUT:
                conn.flush()
            if (mask & (EPOLLIN | EPOLLRDHUP) and conn.watching
                    and not hw_state_has(&conn.c.state, HW_READ_PAUSED)):
                self.readable(conn)
            elif mask & (EPOLLERR | EPOLLHUP):
                conn.lost(socket_error(conn.c.fd))
            elif mask & (EPOLLIN | EPOLLRDHUP):
                self.want(conn)  # paused: stop hearing of it
            if i & 15 == 15:
                engine.update_clock()
                if engine.now_us - start > BATCH_US:
                    break
        conn = None
        engine.end(outermost)

    cdef void readable(self, Connection conn) noexcept:
        cdef Engine engine = self.engine
        cdef ssize_t n
        cdef int _i
        for _i in range(ROUNDS):
            n = hw_conn_recv(&conn.c, engine.buffer, engine.buffer_size)
            if n > 0:
                conn.receive(engine.buffer, n)
                if <size_t>n < engine.buffer_size or hw_state_has(&conn.c.state, HW_READ_PAUSED) \
                        or hw_state_phase(&conn.c.state) == HW_CLOSED:
                    return
            elif n == 0:
                conn.receive_eof()
                return
            else:
                if n != -EAGAIN:
                    conn.lost(<int>-n)
                return

    def abort_all(self):
        """Closes every connection at once."""
        cdef uint32_t slot
        cdef Connection conn
        cdef bint outermost = self.engine.begin()
        for slot in range(self.capacity):
            if self.slots[slot] != NULL:
                conn = <Connection>self.slots[slot]
                conn.abort("shutdown", 1001)
        conn = None
        self.engine.end(outermost)

    # ---------------------------------------------------------------- as a Link

    cdef ssize_t push(self, Endpoint conn) noexcept:
        return -_errno.ENOTCONN  # never asked: these connections have a descriptor

    cdef void want(self, Endpoint conn) noexcept:
        cdef epoll_event event
        cdef bint reading = conn.watching and not hw_state_has(&conn.c.state, HW_READ_PAUSED)
        cdef bint writing = hw_state_has(&conn.c.state, HW_WRITE_BLOCKED)
        if reading == conn.armed_read and writing == conn.armed_write:
            return
        conn.armed_read = reading
        conn.armed_write = writing
        event.events = (EPOLLIN | EPOLLRDHUP if reading else 0) | (EPOLLOUT if writing else 0)
        event.data.u64 = <uint64_t>self.generations[conn.c.slot] << 32 | conn.c.slot
        epoll_ctl(self.epfd, EPOLL_CTL_MOD, conn.c.fd, &event)

    cdef void shutdown(self, Endpoint conn) noexcept:
        shutdown(conn.c.fd, SHUT_WR)

    cdef void detach(self, Endpoint conn) noexcept:
        self.forget(<Connection>conn)
        close(conn.c.fd)
        conn.c.fd = -1

    def release(self, Connection conn):
        cdef int fd = conn.c.fd
        self.forget(conn)
        conn.c.fd = -1
        return fd

    cdef bint pending_input(self, Endpoint conn) noexcept:
        cdef int waiting = 0
        return ioctl(conn.c.fd, FIONREAD, &waiting) == 0 and waiting > 0


cdef int socket_error(int fd) noexcept:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)
    return error
