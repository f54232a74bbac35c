# The C core as Cython sees it: the one place where csrc headers are declared. The contract of each
# function is in its header. Nothing here touches a Python object, so everything is `noexcept nogil`.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


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


cdef extern from "clock.h" nogil:
    uint64_t hw_clock_us() noexcept
    uint64_t hw_unix_us() noexcept


cdef extern from "word.h" nogil:
    # Opaque like hw_state: read by other threads.
    ctypedef struct hw_word:
        pass

    ctypedef struct hw_word32:
        pass

    uint64_t hw_word_load(const hw_word *w) noexcept
    void hw_word_store(hw_word *w, uint64_t value) noexcept
    void hw_word_add(hw_word *w, uint64_t by) noexcept
    uint32_t hw_word32_load(const hw_word32 *w) noexcept
    void hw_word32_store(hw_word32 *w, uint32_t value) noexcept


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
    void hw_wheel_verify(const hw_wheel *w) noexcept


cdef extern from "histogram.h" nogil:
    enum:
        HW_HISTOGRAM_BOUNDS
    ctypedef struct hw_histogram:
        uint64_t counts[14]
        uint64_t sum
    const uint64_t HW_TIME_BOUNDS_US[]
    const uint64_t HW_COUNT_BOUNDS[]
    void hw_observe(hw_histogram *histogram, const uint64_t *bounds, uint64_t value) noexcept

cdef extern from "bucket.h" nogil:
    ctypedef struct hw_rate:
        double unit_ns
        uint64_t burst

    bint hw_bucket_fits(uint64_t full_at, const hw_rate *rate, uint64_t now_ns, uint64_t units) noexcept
    void hw_bucket_take(uint64_t *full_at, const hw_rate *rate, uint64_t now_ns, uint64_t units) noexcept


cdef extern from "jsonscan.h" nogil:
    enum:
        HW_JSON_OK
        HW_JSON_ACTION
        HW_JSON_DEEP

    int hw_jsonscan(const uint8_t *p, size_t n, unsigned int max_depth) noexcept


cdef extern from "jsonvalue.h" nogil:
    enum:
        HW_JSON_HEAD_MOST

    size_t hw_json_container(const uint8_t *p, size_t n, unsigned int max_depth) noexcept
    size_t hw_json_data(const uint8_t *p, size_t n, unsigned int max_depth, size_t *len) noexcept


cdef extern from "parser.h" nogil:
    ctypedef struct hw_limits:
        size_t max_message
        uint32_t max_fragments

    ctypedef struct hw_run:
        pass

    ctypedef struct hw_parser:
        uint8_t rsv1

    ctypedef enum hw_event_kind:
        HW_EV_ERROR
        HW_EV_MEMORY
        HW_EV_NONE
        HW_EV_TEXT
        HW_EV_BINARY
        HW_EV_PING
        HW_EV_PONG
        HW_EV_CLOSE

    ctypedef struct hw_event:
        uint8_t *data
        size_t len
        const char *reason
        uint16_t code
        bint ascii
        bint compressed

    hw_event_kind hw_parser_next(hw_parser *p, const hw_limits *limits, uint8_t *buf, size_t n, size_t *used,
                                 hw_event *ev) noexcept
    bint hw_parser_busy(const hw_parser *p) noexcept
    void hw_parser_reset(hw_parser *p) noexcept
    size_t hw_parser_memory(const hw_parser *p) noexcept
    bint hw_close_code_valid(unsigned int code) noexcept


cdef extern from "deflate.h" nogil:
    ctypedef struct hw_zip:
        pass

    ctypedef struct hw_zip_peer:
        uint8_t out_bits
        uint8_t out_takeover

    bint hw_zip_available() noexcept
    void hw_zip_free(hw_zip *z) noexcept
    hw_zip_peer *hw_zip_peer_new(uint8_t out_bits, uint8_t in_bits, bint out_takeover,
                                 bint in_takeover) noexcept
    void hw_zip_peer_free(hw_zip_peer *peer) noexcept
    hw_event_kind hw_zip_event(hw_zip *z, hw_zip_peer *peer, size_t limit, hw_event_kind kind, hw_event *ev,
                               hw_run **lent) noexcept
    void hw_zip_return(hw_zip *z, hw_run *lent) noexcept
    int hw_zip_deflate(hw_zip *z, hw_zip_peer *peer, const uint8_t *p, size_t n, const uint8_t **out,
                       size_t *len) noexcept


cdef extern from "outqueue.h" nogil:
    ctypedef struct hw_shared:
        size_t len
        uint8_t data[]

    ctypedef struct hw_out_node:
        size_t start
        size_t end
        size_t cap

    ctypedef struct hw_outqueue:
        hw_out_node *head
        hw_out_node *tail

    hw_shared *hw_shared_new(uint8_t opcode, uint8_t rsv, size_t n, uint8_t **payload) noexcept
    void hw_shared_drop(hw_shared *s) noexcept
    ssize_t hw_out_frame(hw_outqueue *q, hw_out_node *cork, uint8_t opcode, int fin, uint8_t rsv,
                         const uint8_t *payload, size_t n) noexcept
    ssize_t hw_out_shared(hw_outqueue *q, hw_shared *s) noexcept
    void hw_out_consume(hw_outqueue *q, hw_out_node *cork, size_t n) noexcept
    int hw_out_uncork(hw_outqueue *q, hw_out_node *cork) noexcept
    size_t hw_out_truncate(hw_outqueue *q, hw_out_node *cork) noexcept
    void hw_out_clear(hw_outqueue *q, hw_out_node *cork) noexcept
    bint hw_out_empty(const hw_outqueue *q) noexcept
    const uint8_t *hw_out_front(const hw_outqueue *q, size_t *n) noexcept


cdef extern from "conn.h" nogil:
    enum:
        HW_OK
        HW_E_CLOSED
        HW_E_SLOW
        HW_E_MEMORY
        HW_E_FRAGMENT

    enum:
        HW_DUE_PING
        HW_DUE_WRITE
        HW_DUE_OPENING
        HW_DUE_CLOSING
        HW_DUE_MESSAGE
        HW_DUE_READ
        HW_DUE_TOKEN
        HW_DUE_HANDLER
        HW_DUE_COUNT

    ctypedef struct hw_conn:
        hw_state state
        int fd
        uint32_t slot
        hw_outqueue out
        hw_outqueue *held
        hw_word held_bytes
        hw_word queued
        hw_word sent
        uint64_t ping_end
        hw_wheel_entry timer
        uint32_t due[8]

    void hw_conn_init(hw_conn *c, int fd, uint32_t slot, uint32_t generation) noexcept
    void hw_conn_free(hw_conn *c, hw_out_node *cork) noexcept
    size_t hw_conn_waiting(const hw_conn *c) noexcept
    void hw_conn_take_parser(hw_conn *c, hw_parser *p, bint rsv1) noexcept
    int hw_conn_put_parser(hw_conn *c, hw_parser *p) noexcept
    int hw_conn_frame(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                      size_t n, size_t limit) noexcept
    int hw_conn_frame_now(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                          size_t n, size_t limit, ssize_t *sent) noexcept
    int hw_conn_shared(hw_conn *c, hw_shared *frame, size_t limit) noexcept
    int hw_conn_fragment(hw_conn *c, hw_out_node *cork, uint8_t opcode, int fin, const uint8_t *payload,
                         size_t n, size_t limit) noexcept
    int hw_conn_close_frame(hw_conn *c, hw_out_node *cork, uint16_t code, const uint8_t *reason,
                            size_t n) noexcept
    int hw_conn_bytes(hw_conn *c, hw_out_node *cork, const uint8_t *p, size_t n) noexcept
    void hw_conn_drop_queue(hw_conn *c, hw_out_node *cork) noexcept
    ssize_t hw_conn_flush(hw_conn *c, hw_out_node *cork) noexcept
    void hw_conn_sent(hw_conn *c, hw_out_node *cork, size_t n) noexcept
    ssize_t hw_conn_recv(hw_conn *c, uint8_t *buf, size_t n) noexcept
    uint32_t hw_conn_next_due(const hw_conn *c, uint32_t now) noexcept
    bint hw_due_reached(uint32_t due, uint32_t now) noexcept


cdef extern from "head.h" nogil:
    ctypedef struct hw_span:
        uint32_t at
        uint32_t len

    ctypedef struct hw_head:
        hw_span path
        hw_span query_token
        hw_span host
        hw_span key
        hw_span origin
        hw_span bearer
        hw_span cookie
        hw_span user_agent
        uint8_t extensions

    int hw_head_read(const uint8_t *p, size_t n, hw_head *out) noexcept


cdef extern from "envelope.h" nogil:
    enum:
        HW_HEX_MOST
        HW_INSTANT_LEN

    ctypedef struct hw_counter:
        pass

    uint64_t hw_counter_next(hw_counter *c) noexcept
    size_t hw_write_hex(char *out, uint64_t v) noexcept
    void hw_write_instant(char *out, uint64_t unix_ms) noexcept
    bint hw_text_is_plain(const uint8_t *p, size_t n) noexcept
