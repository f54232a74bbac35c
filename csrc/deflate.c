#include "deflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "utf8.h"

enum {
    LEVEL = 1,             /* a server's processor is scarcer than its network */
    SHARED_MEM_LEVEL = 8,
    OWN_MEM_LEVEL = 5,     /* with a window of 12 bits: 32 KiB a connection instead of 256 */
    WIDEST = 15,
    SPARE_MOST = 256 << 10 /* larger buffers are given back after their message */
};

static const uint8_t TAIL[4] = {0x00, 0x00, 0xff, 0xff}; /* RFC 7692 7.2.1: not sent */

int hw_zip_available(void) { return 1; }

static z_stream *inflater_new(int bits) {
    z_stream *s = calloc(1, sizeof *s);
    if (s && inflateInit2(s, -bits) != Z_OK) {
        free(s);
        return NULL;
    }
    return s;
}

static z_stream *deflater_new(int bits, int mem_level) {
    z_stream *s = calloc(1, sizeof *s);
    if (s && deflateInit2(s, LEVEL, Z_DEFLATED, -bits, mem_level, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(s);
        return NULL;
    }
    return s;
}

static void inflater_free(z_stream *s) {
    if (s) inflateEnd(s);
    free(s);
}

static void deflater_free(z_stream *s) {
    if (s) deflateEnd(s);
    free(s);
}

void hw_zip_free(hw_zip *z) {
    inflater_free(z->inflater);
    for (int bits = 0; bits <= WIDEST; bits++) deflater_free(z->deflaters[bits]);
    free(z->out);
    free(z->spare);
    memset(z, 0, sizeof *z);
}

hw_zip_peer *hw_zip_peer_new(uint8_t out_bits, uint8_t in_bits, int out_takeover, int in_takeover) {
    hw_zip_peer *peer = calloc(1, sizeof *peer);
    if (!peer) return NULL;
    peer->out_bits = out_bits;
    peer->in_bits = in_bits;
    peer->out_takeover = out_takeover != 0;
    peer->in_takeover = in_takeover != 0;
    return peer;
}

void hw_zip_peer_free(hw_zip_peer *peer) {
    if (!peer) return;
    inflater_free(peer->inflater);
    deflater_free(peer->deflater);
    free(peer);
}

/* ---------------------------------------------------------------- inflating */

/* Gives the stream room behind what it has written to *run: at most one byte beyond the limit, by which a
 * message that is too big shows. Returns 0; 1 if that byte has been written; -1 if memory is out. */
static int make_room(z_stream *s, hw_run **run, size_t limit) {
    size_t len = (*run)->len, cap = (*run)->cap;
    if (len > limit) return 1;
    if (len == cap) {
        size_t want = cap * 2 > limit ? limit + 1 : cap * 2;
        hw_run *grown = realloc(*run, sizeof(hw_run) + want);
        if (!grown) return -1;
        grown->cap = cap = want;
        *run = grown;
    }
    if (cap > limit + 1) cap = limit + 1;
    s->next_out = (*run)->data + len;
    s->avail_out = (uInt)(cap - len);
    return 0;
}

/* After a final block (RFC 7692 7.2.3.4) a new sequence of blocks may follow, with the same window. */
static int restart(z_stream *s, int bits) {
    uint8_t window[1 << WIDEST];
    uInt n = 0;
    if (inflateGetDictionary(s, window, &n) != Z_OK || inflateReset2(s, -bits) != Z_OK) return -1;
    s->data_type = 128; /* between two blocks: the final one may have been the empty block of the tail */
    return n && inflateSetDictionary(s, window, n) != Z_OK ? -1 : 0;
}

/* Appends what n bytes inflate to. Returns 0, a close code, or -1 if memory is out. */
static int inflate_bytes(z_stream *s, int bits, const uint8_t *p, size_t n, size_t limit, hw_run **run, int *ended) {
    s->next_in = (Bytef *)p;
    s->avail_in = (uInt)n;
    for (;;) {
        int room = make_room(s, run, limit);
        if (room) return room < 0 ? -1 : 1009;
        uInt before = s->avail_out;
        int rc = inflate(s, Z_SYNC_FLUSH);
        (*run)->len += before - s->avail_out;
        if (rc == Z_MEM_ERROR) return -1;
        if (rc == Z_STREAM_END) {
            /* One is an oddity, many are an attack: each costs a copy of the window. */
            if ((*ended)++ || restart(s, bits) < 0) return 1002;
        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            return 1002;
        }
        if (!s->avail_in && s->avail_out) return (*run)->len > limit ? 1009 : 0;
        if (rc == Z_BUF_ERROR && s->avail_out) return 1002; /* no progress with input and room: cannot be */
    }
}

static int inflate_message(z_stream *s, int bits, const uint8_t *p, size_t n, size_t limit, hw_run **run) {
    int ended = 0;
    int rc = inflate_bytes(s, bits, p, n, limit, run, &ended);
    if (rc == 0) rc = inflate_bytes(s, bits, TAIL, sizeof TAIL, limit, run, &ended);
    /* Bit 7: between two blocks. Anything else is a message that was cut short. */
    if (rc == 0 && !(s->data_type & 128)) rc = 1002;
    return rc;
}

static hw_event_kind fail(hw_event *ev, int code) {
    ev->code = (uint16_t)code;
    ev->reason = code == 1009 ? "message too big" : code == 1007 ? "text is not UTF-8" : "compressed data is broken";
    return HW_EV_ERROR;
}

hw_event_kind hw_zip_event(hw_zip *z, hw_zip_peer *peer, size_t limit, hw_event_kind kind, hw_event *ev,
                           hw_run **lent) {
    z_stream **place = peer->in_takeover ? &peer->inflater : &z->inflater;
    int bits = peer->in_takeover ? peer->in_bits : WIDEST;
    hw_run *run = z->spare;
    z->spare = NULL;
    if (!run) {
        size_t cap = 4096;
        run = malloc(sizeof(hw_run) + cap);
        if (!run) return HW_EV_MEMORY;
        run->cap = cap;
    }
    run->len = 0;
    if (!*place && !(*place = inflater_new(bits))) {
        hw_zip_return(z, run);
        return HW_EV_MEMORY;
    }
    if (!peer->in_takeover) inflateReset(*place);
    /* Nothing at all stands for an empty message with some peers, though an empty block is one byte. */
    int rc = ev->len ? inflate_message(*place, bits, ev->data, ev->len, limit, &run) : 0;
    if (rc == 0 && kind == HW_EV_TEXT) {
        uint32_t state = HW_UTF8_ACCEPT;
        if (hw_utf8(&state, run->data, run->len) != 0 || state != HW_UTF8_ACCEPT) rc = 1007;
    }
    if (rc) {
        hw_zip_return(z, run);
        return rc < 0 ? HW_EV_MEMORY : fail(ev, rc);
    }
    ev->data = run->data;
    ev->len = run->len;
    ev->ascii = false;
    ev->compressed = false;
    *lent = run;
    return kind;
}

void hw_zip_return(hw_zip *z, hw_run *lent) {
    if (z->spare || lent->cap > SPARE_MOST)
        free(lent);
    else
        z->spare = lent;
}

/* ---------------------------------------------------------------- deflating */

static int grow_out(hw_zip *z, size_t want) {
    if (z->out_cap >= want) return 0;
    uint8_t *grown = realloc(z->out, want);
    if (!grown) return -1;
    z->out = grown;
    z->out_cap = want;
    return 0;
}

static int run_deflater(hw_zip *z, z_stream *s, const uint8_t *p, size_t n, size_t *len) {
    if (z->out_cap > SPARE_MOST) {
        free(z->out);
        z->out = NULL;
        z->out_cap = 0;
    }
    if (grow_out(z, deflateBound(s, (uLong)n) + 16) < 0) return -1;
    s->next_in = (Bytef *)p;
    s->avail_in = (uInt)n;
    *len = 0;
    for (;;) {
        s->next_out = z->out + *len;
        s->avail_out = (uInt)(z->out_cap - *len);
        if (deflate(s, Z_SYNC_FLUSH) == Z_STREAM_ERROR) return -1;
        *len = z->out_cap - s->avail_out;
        if (s->avail_out) break;
        if (grow_out(z, z->out_cap * 2) < 0) return -1;
    }
    *len -= sizeof TAIL;
    return 0;
}

int hw_zip_deflate(hw_zip *z, hw_zip_peer *peer, const uint8_t *p, size_t n, const uint8_t **out, size_t *len) {
    int takeover = peer && peer->out_takeover;
    int bits = peer ? peer->out_bits : WIDEST;
    if (!n || bits < 9) return 0; /* zlib has no raw window of 8 bits */
    z_stream **place = takeover ? &peer->deflater : &z->deflaters[bits];
    if (!*place) *place = deflater_new(bits, takeover ? OWN_MEM_LEVEL : SHARED_MEM_LEVEL);
    else if (!takeover) deflateReset(*place);
    if (!*place || run_deflater(z, *place, p, n, len) < 0) {
        if (takeover) peer->out_bits = 0; /* its stream has seen what the peer's never will */
        return 0;
    }
    *out = z->out;
    return takeover || *len < n;
}
