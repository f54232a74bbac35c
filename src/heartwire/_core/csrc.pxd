# The C core as Cython sees it: the one place where csrc headers are declared. The contract of each
# function is in its header. Nothing here touches a Python object, so everything is `noexcept nogil`.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "state.h" nogil:
    enum:
        HW_CONNECTING
        HW_OPEN
        HW_CLOSING
        HW_CLOSED
        HW_PHASE_MASK

    enum:
        HW_CLOSE_SENT
        HW_CLOSE_RCVD
        HW_EOF
        HW_WRITE_BLOCKED
        HW_FRAG_SENDING
        HW_PING_OUTSTANDING
        HW_READ_PAUSED
        HW_IN_CALLBACK
        HW_DETACHED

    # Opaque on purpose: the atomic word is only ever touched through the functions below.
    ctypedef struct hw_state:
        pass

    void hw_state_init(hw_state *s, uint32_t generation) noexcept
    uint64_t hw_state_load(const hw_state *s) noexcept
    int hw_state_phase(const hw_state *s) noexcept
    uint32_t hw_state_generation(const hw_state *s) noexcept
    bint hw_state_has(const hw_state *s, uint32_t flag) noexcept
    bint hw_state_advance(hw_state *s, int to) noexcept
    bint hw_state_step(hw_state *s, int origin, int to) noexcept
    bint hw_state_set(hw_state *s, uint32_t flag) noexcept
    bint hw_state_clear(hw_state *s, uint32_t flag) noexcept


cdef extern from "mask.h" nogil:
    uint8_t hw_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, size_t pos) noexcept


cdef extern from "utf8.h" nogil:
    enum:
        HW_UTF8_ACCEPT

    int hw_utf8(uint32_t *state, const uint8_t *p, size_t n) noexcept


cdef extern from "frame.h" nogil:
    enum:
        HW_OP_CONT
        HW_OP_TEXT
        HW_OP_BINARY
        HW_OP_CLOSE
        HW_OP_PING
        HW_OP_PONG

    enum:
        HW_HEADER_MAX
        HW_RSV1
        HW_RSV2
        HW_RSV3

    ctypedef struct hw_frame_header:
        uint64_t length
        uint8_t fin
        uint8_t rsv
        uint8_t opcode
        uint8_t masked
        uint8_t key[4]

    int hw_frame_parse(const uint8_t *p, size_t n, hw_frame_header *out) noexcept
    size_t hw_frame_build(uint8_t *out, uint8_t opcode, int fin, uint8_t rsv, uint64_t length) noexcept


cdef extern from "wheel.h" nogil:
    ctypedef struct hw_wheel_entry:
        hw_wheel_entry *prev
        hw_wheel_entry *next
        uint64_t deadline

    ctypedef struct hw_wheel:
        hw_wheel_entry *slots
        uint64_t *occupied
        hw_wheel_entry expired
        uint64_t now
        uint64_t mask
        size_t count

    int hw_wheel_init(hw_wheel *w, size_t slot_count, uint64_t now) noexcept
    void hw_wheel_free(hw_wheel *w) noexcept
    void hw_wheel_add(hw_wheel *w, hw_wheel_entry *e, uint64_t deadline) noexcept
    void hw_wheel_remove(hw_wheel *w, hw_wheel_entry *e) noexcept
    bint hw_wheel_linked(const hw_wheel_entry *e) noexcept
    void hw_wheel_advance(hw_wheel *w, uint64_t now) noexcept
    hw_wheel_entry *hw_wheel_pop(hw_wheel *w) noexcept
    uint64_t hw_wheel_next(const hw_wheel *w) noexcept
    int hw_wheel_check(const hw_wheel *w) noexcept


cdef extern from "jsonscan.h" nogil:
    enum:
        HW_JSON_OK
        HW_JSON_ACTION
        HW_JSON_DEEP

    int hw_jsonscan(const uint8_t *p, size_t n, unsigned int max_depth) noexcept
