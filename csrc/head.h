/* The head of an ordinary WebSocket upgrade request, read in one pass.
 *
 * This is a shortcut for the case that nearly every client sends, not a second parser: whatever is
 * unusual (a duplicate, a body, an escape in the target, a byte above 0x7e, a subprotocol, another
 * spelling of `Connection`) makes it say "not ordinary", and heartwire.http_head judges the same bytes.
 * What it accepts, http_head accepts with the same meaning; a test compares the two. */
#ifndef HW_HEAD_H
#define HW_HEAD_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t at, len; /* within the head; len 0: absent or empty */
} hw_span;

typedef struct {
    hw_span path;          /* without query */
    hw_span query_token;   /* value of the query parameter `token` */
    hw_span host;
    hw_span key;           /* 24 characters of base64 */
    hw_span origin;
    hw_span bearer;        /* the token of `Authorization: Bearer` */
    hw_span cookie;
    hw_span user_agent;
    uint8_t extensions;    /* Sec-WebSocket-Extensions is there */
} hw_head;

/* p: a whole head, its empty line included. Returns 1 if it is ordinary, else 0. */
int hw_head_read(const uint8_t *p, size_t n, hw_head *out);

#endif
