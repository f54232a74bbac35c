# One WebSocket connection. See connection.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from heartwire._core.csrc cimport hw_event, hw_event_kind, hw_shared, hw_word, hw_word32, hw_zip_peer
from heartwire._core.engine cimport Endpoint
from heartwire._core.link cimport Link, Sink


@cython.no_gc
cdef class Connection(Endpoint):
    cdef readonly Sink sink             # owned: shared by the server's connections
    cdef Link link                      # owned: the reactor, or a transport of its own
    cdef hw_zip_peer *zip               # owned: NULL unless permessage-deflate was negotiated
    cdef public object owner            # the Client: owned until the end was told
    cdef uint8_t *pending               # owned: bytes received and not yet parsed, NULL if none
    cdef uint32_t pending_len
    cdef uint32_t pending_start
    # heartbeat
    cdef uint32_t last_rx               # engine.now_ms of the last byte received
    cdef uint32_t ping_us               # when the ping under way was handed over, low 32 bits
    cdef hw_word32 rtt_us               # of the last answered ping, 0: none yet
    cdef uint32_t paused_at             # engine.now_ms when reading was paused, 0: it is not
    # how it ends
    cdef readonly object cause          # one of heartwire.closing's words, None while open
    cdef readonly object reason         # the close reason, received or ours
    cdef readonly uint16_t code         # the close code, received or ours
    cdef public uint8_t special         # not 0: messages go to the sink's on_special
    cdef public uint8_t errors_in_a_row  # error events without an accepted action between
    cdef uint8_t ending                 # the enum at the top of connection.pyx
    cdef uint8_t pumping                # messages are being parsed and delivered right now
    cdef uint8_t was_open
    cdef uint8_t ping_stopped           # the heartbeat has let go of it
    # where it comes from
    cdef public uint8_t introduced      # a header of the PROXY protocol was read, or is not expected
    cdef uint8_t peer_family            # 4, 6, or 0: a Unix socket
    cdef uint16_t peer_port
    cdef uint8_t peer_address[16]
    # rate limits
    cdef uint64_t messages_full_at      # hw_bucket, in nanoseconds of the engine's clock
    cdef uint64_t bytes_full_at
    # figures
    cdef uint32_t linger_left
    cdef uint32_t accounted             # its share of engine.totals.queued_bytes
    cdef uint64_t bytes_in
    cdef uint32_t messages_in
    cdef uint32_t messages_out
    cdef uint32_t opened_ms
    cdef uint32_t last_tx               # engine.now_ms when the kernel last took bytes
    cdef readonly double opened_at      # Unix time, 0 before it was OPEN
    cdef int failure                    # errno that ended it, 0: none
    cdef list drain_waiters             # futures, None while nobody waits
    # other threads
    cdef hw_word posted_bytes           # of messages that other threads have handed over, not queued yet

    cdef void receive(self, uint8_t *p, size_t n) noexcept
    cdef void receive_eof(self) noexcept
    cdef void lost(self, int error) noexcept
    cdef void flush(self) noexcept
    cdef void account(self, size_t waiting) noexcept
    cdef void expire(self) noexcept
    cdef void settle(self) noexcept
    cdef int queue(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept
    cdef int queue_shared(self, hw_shared *frame) noexcept
    cdef bint offer(self) noexcept
    cdef int queue_deflated(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept
    cdef int check(self, int rc) except -1
    cdef void leave_open(self, uint16_t code, object reason, object cause) noexcept
    cdef void end(self, uint16_t code, object reason, object cause, uint32_t patience_ms) noexcept
    cdef void slow(self) noexcept
    cdef void finish(self) noexcept
    cdef bint admit(self, hw_event_kind kind, hw_event *ev) noexcept
    cdef bint introduce(self) noexcept
    cdef size_t pump(self, uint8_t *p, size_t n) noexcept
    cdef void keep(self, const uint8_t *p, size_t n) noexcept
    cdef void receive_head(self, uint8_t *p, size_t n) noexcept
    cdef void pump_pending(self) noexcept
    cdef void close_received(self, uint16_t code, const uint8_t *reason, size_t n) noexcept
    cdef void note_ipv6(self, const uint8_t *address) noexcept
    cdef void send_ping(self) noexcept
    cdef void wake_drained(self, object error) noexcept
    cdef void ping_left(self) noexcept
    cdef void progress(self, ssize_t n) noexcept
    cdef bint passed(self, int which, uint32_t now) noexcept
