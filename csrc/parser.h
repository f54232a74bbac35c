/* From bytes to messages: the receiving half of RFC 6455 section 5, without I/O and without Python.
 *
 * Feed it with hw_parser_next until it answers HW_EV_NONE. A message that arrives whole in one frame
 * is unmasked where it lies, in the caller's buffer; only an incomplete one is copied. UTF-8 is
 * checked as the bytes arrive. Violations are judged in the order of protocol.md 3:
 * header rules (1002), size or fragment count (1009), UTF-8 (1007). */
#ifndef HW_PARSER_H
#define HW_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t max_message;     /* bytes of one message, inclusive */
    uint32_t max_fragments; /* frames of one message, inclusive */
} hw_limits;

/* A growing run of bytes. */
typedef struct {
    size_t len, cap;
    uint8_t data[];
} hw_run;

typedef struct {
    hw_run *message;    /* owned: the incomplete data message, NULL if none */
    hw_run *control;    /* owned: the incomplete control payload, NULL if none */
    uint64_t remaining; /* payload bytes of the frame under way that have not come yet */
    uint32_t utf8;      /* hw_utf8 state of the text message under way */
    uint32_t fragments; /* frames of the message under way so far */
    uint8_t header[14]; /* header bytes of a frame whose header is incomplete */
    uint8_t header_len;
    uint8_t key[4];
    uint8_t key_pos;    /* payload offset modulo 4 */
    uint8_t opcode;     /* of the frame under way */
    uint8_t fin;
    uint8_t in_frame;   /* a header was read, its payload is not complete */
    uint8_t kind;       /* HW_OP_TEXT or HW_OP_BINARY while a message is under way, else 0 */
    uint8_t compressed; /* its first frame had RSV1 */
    uint8_t rsv1;       /* permessage-deflate was negotiated */
    uint8_t high;       /* a byte >= 0x80 was seen in it */
    uint8_t stale;      /* `message` or `control` was handed out: free it at the next call */
} hw_parser;

typedef enum {
    HW_EV_ERROR = -1, /* the peer broke a rule: code, reason; feed nothing more */
    HW_EV_MEMORY = -2,
    HW_EV_NONE = 0,   /* everything was consumed */
    HW_EV_TEXT,       /* a complete message: data, len, ascii, compressed */
    HW_EV_BINARY,
    HW_EV_PING,       /* data, len */
    HW_EV_PONG,
    HW_EV_CLOSE,      /* code (1005 if none was given), data and len: the reason */
} hw_event_kind;

typedef struct {
    uint8_t *data; /* borrowed: valid until the next call on this parser, or while the fed buffer is */
    size_t len;
    const char *reason; /* static text, for HW_EV_ERROR */
    uint16_t code;
    bool ascii;
    bool compressed;
} hw_event;

/* Consumes bytes of buf (which it unmasks in place) up to the end of one event.
 * *used is the number consumed, also on errors. */
hw_event_kind hw_parser_next(hw_parser *p, const hw_limits *limits, uint8_t *buf, size_t n,
                             size_t *used, hw_event *ev);

/* True while a data message has begun and is not complete. */
static inline bool hw_parser_busy(const hw_parser *p) {
    return p->kind != 0 || (p->in_frame && p->opcode < 8) || p->header_len != 0;
}

/* True between messages: nothing that was received is still to be completed. What was handed out may still be
 * held (`stale`). */
static inline bool hw_parser_idle(const hw_parser *p) {
    return p->kind == 0 && !p->in_frame && p->header_len == 0;
}

/* Frees what it holds; the parser is as new. */
void hw_parser_reset(hw_parser *p);

/* Heap bytes it holds now. */
size_t hw_parser_memory(const hw_parser *p);

/* RFC 6455 7.4: may this code stand in a CLOSE frame? */
bool hw_close_code_valid(unsigned code);

#endif
