"""Frames without I/O: what tests, tools and other transports need of the C core, one call each.

The engine calls the same C functions itself and comes by none of this.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from heartwire._core.csrc cimport (
    HW_CLOSED,
    HW_CONNECTING,
    HW_JSON_ACTION,
    HW_JSON_DEEP,
    HW_JSON_OK,
    HW_UTF8_ACCEPT,
    hw_frame_build,
    hw_frame_header,
    hw_frame_parse,
    hw_json_container,
    hw_json_data,
    hw_jsonscan,
    hw_mask,
    hw_state,
    hw_state_advance,
    hw_state_clear,
    hw_state_generation,
    hw_state_init,
    hw_state_load,
    hw_state_phase,
    hw_state_set,
    hw_state_step,
    hw_utf8,
)

from heartwire.errors import RemoteProtocolError

__all__ = [
    "JSON_ACTION",
    "JSON_DEEP",
    "JSON_OK",
    "FrameHeader",
    "StateWord",
    "Utf8Validator",
    "apply_mask",
    "build_frame_header",
    "find_json_data",
    "json_container",
    "mask_in_place",
    "parse_frame_header",
    "scan_json",
]

JSON_OK = HW_JSON_OK
JSON_ACTION = HW_JSON_ACTION
JSON_DEEP = HW_JSON_DEEP


cdef int check_mask(bytes key, Py_ssize_t pos) except -1:
    if len(key) != 4:
        raise ValueError(f"a masking key is 4 bytes, not {len(key)}")
    if pos < 0:
        raise ValueError(f"pos is an offset into the payload, not {pos}")
    return 0


def apply_mask(data, bytes key not None, Py_ssize_t pos=0):
    cdef Py_buffer view
    cdef bytes result
    check_mask(key, pos)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result = PyBytes_FromStringAndSize(NULL, view.len)
        hw_mask(
            <uint8_t *>PyBytes_AS_STRING(result),
            <const uint8_t *>view.buf,
            <size_t>view.len,
            <const uint8_t *>PyBytes_AS_STRING(key),
            <size_t>pos,
        )
    finally:
        PyBuffer_Release(&view)
    return result


def mask_in_place(data, bytes key not None, Py_ssize_t pos=0):
    cdef Py_buffer view
    cdef uint8_t high_bit
    check_mask(key, pos)
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE)
    high_bit = hw_mask(
        <uint8_t *>view.buf,
        <const uint8_t *>view.buf,
        <size_t>view.len,
        <const uint8_t *>PyBytes_AS_STRING(key),
        <size_t>pos,
    )
    PyBuffer_Release(&view)
    return high_bit == 0


@cython.final
cdef class Utf8Validator:
    cdef uint32_t _state

    def __cinit__(self):
        self._state = HW_UTF8_ACCEPT

    def feed(self, data):
        cdef Py_buffer view
        cdef int status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        status = hw_utf8(&self._state, <const uint8_t *>view.buf, <size_t>view.len)
        PyBuffer_Release(&view)
        if status < 0:
            raise RemoteProtocolError(1007, "text is not UTF-8")

    @property
    def complete(self):
        return self._state == HW_UTF8_ACCEPT


@cython.final
@cython.auto_pickle(False)
cdef class FrameHeader:
    cdef readonly bint fin
    cdef readonly int rsv
    cdef readonly int opcode
    cdef readonly bint masked
    cdef readonly bytes key
    cdef readonly uint64_t length
    cdef readonly int size

    def __init__(self):
        raise TypeError("FrameHeader comes from parse_frame_header")

    def __repr__(self):
        # Without the key: with it, a log of masked payloads could be read.
        return (
            f"FrameHeader(fin={self.fin}, rsv={self.rsv}, opcode={self.opcode:#x}, "
            f"masked={self.masked}, length={self.length}, size={self.size})"
        )


def parse_frame_header(data):
    cdef Py_buffer view
    cdef hw_frame_header parsed
    cdef int size
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    size = hw_frame_parse(<const uint8_t *>view.buf, <size_t>view.len, &parsed)
    PyBuffer_Release(&view)
    if size < 0:
        raise RemoteProtocolError(1002, "frame length is not in its shortest form or exceeds 63 bits")
    if size == 0:
        return None
    cdef FrameHeader header = FrameHeader.__new__(FrameHeader)
    header.fin = parsed.fin != 0
    header.rsv = parsed.rsv
    header.opcode = parsed.opcode
    header.masked = parsed.masked != 0
    header.key = PyBytes_FromStringAndSize(<const char *>parsed.key, 4) if parsed.masked else None
    header.length = parsed.length
    header.size = size
    return header


def build_frame_header(int opcode, length, bint fin=True, int rsv=0):
    cdef uint8_t out[10]
    cdef size_t size
    if not 0 <= opcode <= 15:
        raise ValueError(f"an opcode is 0 to 15, not {opcode}")
    if not 0 <= rsv <= 7:
        raise ValueError(f"rsv is 0 to 7 (RSV1 4, RSV2 2, RSV3 1), not {rsv}")
    if not 0 <= length < 1 << 63:
        raise ValueError(f"a frame's length is 0 to 2**63 - 1, not {length}")
    size = hw_frame_build(out, <uint8_t>opcode, fin, <uint8_t>rsv, <uint64_t>length)
    return PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)


def scan_json(data, max_depth=128):
    cdef Py_buffer view
    cdef unsigned int limit
    cdef int result
    if not 0 <= max_depth <= 0xFFFFFFFF:
        raise ValueError(f"max_depth is 0 to 2**32 - 1, not {max_depth}")
    limit = max_depth
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    result = hw_jsonscan(<const uint8_t *>view.buf, <size_t>view.len, limit)
    PyBuffer_Release(&view)
    return result


def json_container(data, unsigned int max_depth=64):
    cdef Py_buffer view
    cdef size_t size
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    size = hw_json_container(<const uint8_t *>view.buf, <size_t>view.len, max_depth)
    PyBuffer_Release(&view)
    return size


def find_json_data(data, unsigned int max_depth=128):
    cdef Py_buffer view
    cdef size_t at
    cdef size_t size = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    at = hw_json_data(<const uint8_t *>view.buf, <size_t>view.len, max_depth, &size)
    PyBuffer_Release(&view)
    return (at, at + size) if at else None


cdef int phase_of(int phase) except -1:
    if not HW_CONNECTING <= phase <= HW_CLOSED:
        raise ValueError(f"a phase is 0 to 3, not {phase}")
    return phase


cdef uint32_t flag_of(uint32_t flag) except 0:
    if flag < 4 or flag & (flag - 1):
        raise ValueError(f"a flag is one bit of bits 2 to 31, not {flag:#x}")
    return flag


cdef void meet(hw_state *state, int racer, int racers, int linger) noexcept nogil:
    """Sets the racer's own bit and waits for the bits of the others."""
    cdef uint32_t everyone = ((<uint32_t>1 << racers) - 1) << 24
    cdef int _
    cdef int patience = 20_000  # on a single core nobody else comes while this waits
    hw_state_set(state, <uint32_t>1 << (24 + racer))
    while (hw_state_load(state) & everyone) != everyone and patience > 0:
        patience -= 1
    # Who comes last owns the cache line and would always be first: looking at it for a while lets both
    # have it, for a time that differs from word to word.
    for _ in range(linger):
        hw_state_load(state)


@cython.final
cdef class StateWord:
    # Every step is taken without the GIL, or threads could not race here as they do elsewhere.
    cdef hw_state _state

    def __cinit__(self, uint32_t generation=0):
        hw_state_init(&self._state, generation)

    def advance(self, int to):
        cdef int target = phase_of(to)
        cdef bint won
        with nogil:
            won = hw_state_advance(&self._state, target)
        return won

    def step(self, int origin, int to):
        cdef int source = phase_of(origin)
        cdef int target = phase_of(to)
        cdef bint won
        if target <= source:
            raise ValueError(f"a phase only grows: {origin} to {to} is no step")
        with nogil:
            won = hw_state_step(&self._state, source, target)
        return won

    def set(self, uint32_t flag):
        cdef uint32_t bit = flag_of(flag)
        cdef bint won
        with nogil:
            won = hw_state_set(&self._state, bit)
        return won

    def clear(self, uint32_t flag):
        cdef uint32_t bit = flag_of(flag)
        cdef bint won
        with nogil:
            won = hw_state_clear(&self._state, bit)
        return won

    @staticmethod
    def race(list words not None, str step not None, uint32_t value, int racer, int racers):
        cdef bint advancing = step == "advance"
        cdef bint clearing = step == "clear"
        cdef int target = 0
        cdef uint32_t bit = 0
        cdef Py_ssize_t count = len(words)
        cdef Py_ssize_t i
        cdef Py_ssize_t wins = 0
        cdef StateWord word
        cdef tuple kept = tuple(words)  # another thread may change the list meanwhile
        cdef hw_state **states
        if not (advancing or clearing or step == "set"):
            raise ValueError(f"a step is advance, set or clear, not {step}")
        if not 0 <= racer < racers <= 8:
            raise ValueError(f"there are 8 places to race from, not {racer} of {racers}")
        if advancing:
            target = phase_of(<int>value)
        else:
            bit = flag_of(value)
        states = <hw_state **>malloc(<size_t>(count + 1) * sizeof(hw_state *))
        if states == NULL:
            raise MemoryError()
        try:
            for i in range(count):
                word = kept[i]
                states[i] = &word._state
            with nogil:
                for i in range(count):
                    meet(states[i], racer, racers, <int>(i * (2 * racer + 1) % 64))
                    if advancing:
                        wins += hw_state_advance(states[i], target)
                    elif clearing:
                        wins += hw_state_clear(states[i], bit)
                    else:
                        wins += hw_state_set(states[i], bit)
        finally:
            free(states)
        return wins

    @property
    def phase(self):
        return hw_state_phase(&self._state)

    @property
    def generation(self):
        return hw_state_generation(&self._state)

    def load(self):
        return hw_state_load(&self._state)
