/* permessage-deflate (RFC 7692) over zlib: whole messages in, whole messages out.
 *
 * An engine has one hw_zip, whose streams serve every connection without context takeover: reset before
 * each message, they keep nothing in between. A connection has a hw_zip_peer once the extension was
 * negotiated; with context takeover it owns streams too, made at the first compressed message.
 * Limits are enforced while inflating. */
#ifndef HW_DEFLATE_H
#define HW_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

#include "parser.h"

struct z_stream_s;

typedef struct {
    struct z_stream_s *inflater;     /* owned: NULL until the first use */
    struct z_stream_s *deflaters[16]; /* owned: by window bits, NULL until the first use */
    uint8_t *out;                    /* owned: the last message deflated */
    size_t out_cap;
    hw_run *spare;                   /* owned: what the next message is inflated into; NULL while it is lent */
} hw_zip;

typedef struct {
    struct z_stream_s *inflater; /* owned: NULL without context takeover, and before the first use */
    struct z_stream_s *deflater; /* the same */
    uint8_t out_bits;            /* window of what we send, 9 to 15; less: it is never compressed */
    uint8_t in_bits;             /* window of what the peer sends */
    uint8_t out_takeover;        /* our messages refer to earlier ones */
    uint8_t in_takeover;
} hw_zip_peer;

/* 0 in a build without zlib, whose connections never have a hw_zip_peer. */
int hw_zip_available(void);

void hw_zip_free(hw_zip *z);

/* NULL if memory is out. */
hw_zip_peer *hw_zip_peer_new(uint8_t out_bits, uint8_t in_bits, int out_takeover, int in_takeover);
void hw_zip_peer_free(hw_zip_peer *peer);

/* Inflates a compressed message: on success ev->data and ev->len are what it holds, checked as UTF-8 if
 * `kind` is HW_EV_TEXT, and valid until *lent is given back by hw_zip_return. Returns `kind`, or
 * HW_EV_ERROR with ev->code 1002 (broken), 1009 (more than `limit` bytes) or 1007, or HW_EV_MEMORY;
 * nothing is lent then. */
hw_event_kind hw_zip_event(hw_zip *z, hw_zip_peer *peer, size_t limit, hw_event_kind kind, hw_event *ev,
                           hw_run **lent);
void hw_zip_return(hw_zip *z, hw_run *lent);

/* Deflates one message. *out is valid until the next call. Returns 1; 0 if it had better be sent as it
 * is, which is also the way out when memory is (for good, with context takeover). `peer` NULL: without
 * context and with a window of 15 bits, as for many peers at once. */
int hw_zip_deflate(hw_zip *z, hw_zip_peer *peer, const uint8_t *p, size_t n, const uint8_t **out, size_t *len);

#endif
