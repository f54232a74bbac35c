#define _GNU_SOURCE
#include "outqueue.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "sockets.h"

enum {
    NODE_SMALL = 512,  /* the first node of a queue: one malloc size class, enough for a few events */
    NODE_LARGE = 4096, /* the next ones: who has two has more to come */
    SEND_VECTORS = 64, /* pieces of one sendmsg */
    SEND_MOST = 1 << 20, /* bytes of one flush, so that one fast reader does not hold up the others */
};

hw_shared *hw_shared_new(uint8_t opcode, uint8_t rsv, size_t n, uint8_t **payload) {
    uint8_t header[10];
    size_t size = hw_frame_build(header, opcode, 1, rsv, n);
    hw_shared *s = malloc(sizeof *s + size + n);
    if (!s) return NULL;
    atomic_init(&s->refs, 1);
    s->len = size + n;
    memcpy(s->data, header, size);
    *payload = s->data + size;
    return s;
}

void hw_shared_drop(hw_shared *s) {
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) free(s);
}

static void link_tail(hw_outqueue *q, hw_out_node *node) {
    node->next = NULL;
    if (q->tail)
        q->tail->next = node;
    else
        q->head = node;
    q->tail = node;
}

static hw_out_node *new_node(size_t cap) {
    hw_out_node *node = malloc(sizeof *node + cap);
    if (!node) return NULL;
    memset(node, 0, sizeof *node);
    node->cap = cap;
    return node;
}

/* The place for n more bytes at the tail, NULL if memory is out. */
static uint8_t *room(hw_outqueue *q, hw_out_node *cork, size_t n) {
    hw_out_node *tail = q->tail;
    if (tail && !tail->shared && tail->cap - tail->end >= n) {
        uint8_t *at = tail->data + tail->end;
        tail->end += n;
        return at;
    }
    hw_out_node *node;
    if (!tail && cork && n <= cork->cap) {
        node = cork;
        node->start = node->end = node->lead = 0;
        node->shared = NULL;
    } else {
        size_t cap = (tail ? NODE_LARGE : NODE_SMALL) - sizeof *node;
        node = new_node(n > cap ? n : cap);
        if (!node) return NULL;
    }
    link_tail(q, node);
    node->end = n;
    return node->data;
}

ptrdiff_t hw_out_frame(hw_outqueue *q, hw_out_node *cork, uint8_t opcode, int fin, uint8_t rsv,
                       const uint8_t *payload, size_t n) {
    uint8_t header[10];
    size_t size = hw_frame_build(header, opcode, fin, rsv, n);
    uint8_t *at = room(q, cork, size + n);
    if (!at) return -1;
    memcpy(at, header, size);
    if (n) memcpy(at + size, payload, n);
    return (ptrdiff_t)(size + n);
}

ptrdiff_t hw_out_bytes(hw_outqueue *q, hw_out_node *cork, const uint8_t *p, size_t n) {
    uint8_t *at = room(q, cork, n);
    if (!at) return -1;
    memcpy(at, p, n);
    q->tail->lead = q->tail->end;
    return (ptrdiff_t)n;
}

ptrdiff_t hw_out_shared(hw_outqueue *q, hw_shared *s) {
    hw_out_node *node = new_node(0);
    if (!node) return -1;
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    node->shared = s;
    node->end = s->len;
    link_tail(q, node);
    return (ptrdiff_t)s->len;
}

static const uint8_t *bytes_of(const hw_out_node *node) {
    return node->shared ? node->shared->data : node->data;
}

static void drop_head(hw_outqueue *q, hw_out_node *cork) {
    hw_out_node *node = q->head;
    q->head = node->next;
    if (!q->head) q->tail = NULL;
    if (node == cork) return;
    hw_shared_drop(node->shared);
    free(node);
}

void hw_out_consume(hw_outqueue *q, hw_out_node *cork, size_t n) {
    while (n && q->head) {
        size_t here = q->head->end - q->head->start;
        if (n < here) {
            q->head->start += n;
            return;
        }
        n -= here;
        drop_head(q, cork);
    }
}

void hw_out_clear(hw_outqueue *q, hw_out_node *cork) {
    while (q->head) drop_head(q, cork);
}

const uint8_t *hw_out_front(const hw_outqueue *q, size_t *n) {
    if (!q->head) return NULL;
    *n = q->head->end - q->head->start;
    return bytes_of(q->head) + q->head->start;
}

#if HW_SOCKETS

/* Fills piece with unsent nodes. Returns how many were used; *total is their bytes. */
static size_t gather(const hw_outqueue *q, struct iovec *piece, size_t most, size_t *total) {
    size_t used = 0;
    *total = 0;
    for (const hw_out_node *node = q->head; node && used < most && *total < SEND_MOST; node = node->next) {
        piece[used].iov_base = (void *)(bytes_of(node) + node->start);
        piece[used].iov_len = node->end - node->start;
        *total += node->end - node->start;
        used++;
    }
    return used;
}

static ptrdiff_t send_once(const hw_outqueue *q, int fd, size_t *offered) {
    const hw_out_node *node = q->head;
    if (!node->next) {
        *offered = node->end - node->start;
        return send(fd, bytes_of(node) + node->start, *offered, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    struct iovec piece[SEND_VECTORS];
    struct msghdr message = {.msg_iov = piece};
    message.msg_iovlen = gather(q, piece, SEND_VECTORS, offered);
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Appends the frame whose first `sent` bytes have left already. The node is as long as the frame, so that
 * hw_out_truncate finds its end; of what has left only the header is filled in. */
static int append_rest(hw_outqueue *q, const uint8_t *header, size_t size, const uint8_t *payload, size_t n,
                       size_t sent) {
    hw_out_node *node = new_node(size + n);
    if (!node) return -1;
    memcpy(node->data, header, size);
    size_t skip = sent > size ? sent - size : 0;
    memcpy(node->data + size + skip, payload + skip, n - skip);
    node->start = sent;
    node->end = size + n;
    link_tail(q, node);
    return 0;
}

ptrdiff_t hw_out_send_frame(hw_outqueue *q, hw_out_node *cork, int fd, uint8_t opcode, uint8_t rsv,
                            const uint8_t *payload, size_t n, size_t *added, int *blocked) {
    uint8_t header[10];
    size_t size = hw_frame_build(header, opcode, 1, rsv, n);
    struct iovec piece[SEND_VECTORS];
    struct msghdr message = {.msg_iov = piece};
    size_t before;
    size_t used = gather(q, piece, SEND_VECTORS - 2, &before);
    *added = size + n;
    *blocked = 0;
    ptrdiff_t took = 0;
    int whole = 1; /* the queue, all of it, stands before the frame */
    const hw_out_node *last = q->head;
    for (size_t i = 1; i < used; i++) last = last->next;
    if (last && last->next) whole = 0;
    if (whole) {
        piece[used] = (struct iovec){header, size};
        piece[used + 1] = (struct iovec){(void *)payload, n};
        message.msg_iovlen = used + 2;
        do took = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (took < 0 && errno == EINTR);
        if (took < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) return -errno;
            took = 0;
        }
        *blocked = (size_t)took < before + size + n;
    }
    size_t of_queue = (size_t)took < before ? (size_t)took : before;
    hw_out_consume(q, cork, of_queue);
    size_t of_frame = (size_t)took - of_queue;
    if (of_frame < size + n && append_rest(q, header, size, payload, n, of_frame) < 0) return -ENOMEM;
    return took;
}

ptrdiff_t hw_out_send(hw_outqueue *q, hw_out_node *cork, int fd, int *blocked) {
    ptrdiff_t done = 0;
    *blocked = 0;
    while (q->head && done < SEND_MOST) {
        size_t offered;
        ptrdiff_t took = send_once(q, fd, &offered);
        if (took < 0) {
            if (errno == EINTR) continue;
            *blocked = errno == EAGAIN || errno == EWOULDBLOCK;
            return done ? done : -errno;
        }
        hw_out_consume(q, cork, (size_t)took);
        done += took;
        if ((size_t)took < offered) {
            *blocked = 1;
            break;
        }
    }
    return done;
}

#else

ptrdiff_t hw_out_send_frame(hw_outqueue *q, hw_out_node *cork, int fd, uint8_t opcode, uint8_t rsv,
                            const uint8_t *payload, size_t n, size_t *added, int *blocked) {
    (void)q, (void)cork, (void)fd, (void)opcode, (void)rsv, (void)payload, (void)n;
    *added = 0;
    *blocked = 0;
    return -ENOTSOCK;
}

ptrdiff_t hw_out_send(hw_outqueue *q, hw_out_node *cork, int fd, int *blocked) {
    (void)q, (void)cork, (void)fd;
    *blocked = 0;
    return -ENOTSOCK;
}

#endif

int hw_out_uncork(hw_outqueue *q, hw_out_node *cork) {
    if (!cork || q->head != cork) return 0;
    /* The bytes before start are kept: hw_out_truncate finds the frame under way by walking them. */
    hw_out_node *copy = new_node(cork->end);
    if (!copy) return -1;
    memcpy(copy->data, cork->data, cork->end);
    copy->start = cork->start;
    copy->end = cork->end;
    copy->lead = cork->lead;
    copy->next = cork->next;
    q->head = copy;
    if (q->tail == cork) q->tail = copy;
    return 0;
}

void hw_out_append(hw_outqueue *q, hw_outqueue *from) {
    if (!from->head) return;
    if (q->tail)
        q->tail->next = from->head;
    else
        q->head = from->head;
    q->tail = from->tail;
    from->head = from->tail = NULL;
}

/* Where the frame that byte `start - 1` belongs to ends; start itself if that is a boundary. The first
 * `lead` bytes are no frames. */
static size_t end_of_frame(const uint8_t *data, size_t lead, size_t start, size_t end) {
    size_t at = lead;
    while (at < start) {
        hw_frame_header h;
        int size = hw_frame_parse(data + at, end - at, &h);
        if (size <= 0) return end; /* cannot be: keep it all */
        at += (size_t)size + (size_t)h.length;
    }
    return at;
}

size_t hw_out_truncate(hw_outqueue *q, hw_out_node *cork) {
    hw_out_node *head = q->head;
    size_t dropped = 0;
    if (!head) return 0;
    hw_outqueue rest = {head->next, head->next ? q->tail : NULL};
    for (hw_out_node *node = rest.head; node; node = node->next) dropped += node->end - node->start;
    hw_out_clear(&rest, cork);
    head->next = NULL;
    q->tail = head;
    size_t keep = head->start ? end_of_frame(bytes_of(head), head->lead, head->start, head->end) : 0;
    if (keep > head->end) keep = head->end;
    dropped += head->end - (keep > head->start ? keep : head->start);
    if (keep > head->start)
        head->end = keep;
    else
        drop_head(q, cork);
    return dropped;
}

ptrdiff_t hw_out_check(const hw_outqueue *q) {
    ptrdiff_t unsent = 0;
    if (!q->head != !q->tail) return -1;
    for (const hw_out_node *node = q->head; node; node = node->next) {
        if (node->start >= node->end) return -2; /* nothing left of it: it had to go */
        if (node->start && node != q->head) return -3; /* overtaken */
        if (node->shared) {
            if (atomic_load_explicit(&node->shared->refs, memory_order_relaxed) == 0) return -4;
            if (node->end != node->shared->len || node->lead) return -5;
        } else if (node->end > node->cap || node->lead > node->end) {
            return -6;
        }
        if (!node->next && node != q->tail) return -7;
        unsent += (ptrdiff_t)(node->end - node->start);
    }
    return unsent;
}
