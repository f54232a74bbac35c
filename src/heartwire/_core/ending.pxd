# How a connection ends. See ending.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from heartwire._core.engine cimport Endpoint
from heartwire._core.link cimport Link, Sink


cdef enum:
    ENDING_NOT = 0
    ENDING_HANDSHAKE = 1  # a CLOSE was sent, or answered: the rest of the closing handshake
    ENDING_LINGER = 2     # what is queued goes out, then the sending side is shut; input is thrown away
    ENDING_SHUT = 3       # the same, and it has been shut

    LINGER_MS = 1000
    LINGER_BYTES = 65536


# The fields of each of the four classes fill whole words: a gap would be paid for by every connection.
@cython.no_gc
cdef class Ending(Endpoint):
    cdef readonly Sink sink             # owned: shared by the server's connections
    cdef Link link                      # owned: the reactor, or its transport; None once it was settled
    cdef public object owner            # the Client: owned until the end was told
    cdef readonly object cause          # one of heartwire.closing's words, None while open
    cdef readonly object reason         # the close reason, received or ours
    cdef readonly uint16_t code         # the close code, received or ours
    cdef uint8_t ending                 # ENDING_
    cdef uint8_t pumping                # messages are being parsed and delivered right now
    cdef uint8_t was_open
    cdef uint8_t ping_stopped           # the heartbeat has let go of it
    cdef public uint8_t special         # not 0: messages go to the sink's on_special
    cdef public uint8_t errors_in_a_row  # error events without an accepted action between
    cdef int failure                    # errno that ended it, 0: none
    cdef uint32_t opened_ms             # engine.now_ms when it became OPEN

    cdef void pump_pending(self) noexcept
    cdef void leave_open(self, uint16_t code, object reason, object cause) noexcept
    cdef void end(self, uint16_t code, object reason, object cause, uint32_t patience_ms) noexcept
    cdef void finish(self) noexcept
    cdef void lost(self, int error) noexcept
