/*
 * ceiling - the least a WebSocket server on epoll can do: the mark others are held against.
 * C11, Linux, one thread. No JSON, no authentication, no timeouts, no limits worth the name:
 * NOT a server to put anywhere but in this benchmark, on loopback.
 *
 *   build:  gcc -O3 -march=native -std=gnu11 -Wall -Wextra -o ceiling ceiling.c
 *   use:    ceiling PORT echo|fanout [PING_MS]
 *
 * echo    every text or binary message goes back to its sender; the frames that arrived in
 *         one read leave in one send().
 * fanout  what arrives on a connection opened with the path /pub goes to every connection
 *         opened with another path: one frame, built once, one send() a member.
 * PING_MS every connection of the two is sent an empty ping once in so many milliseconds,
 *         a tenth of a second's worth of them at a time.
 * Pings are answered, close frames answered and followed by the end of the connection.
 * One receive buffer serves all connections; a connection holds memory of its own only
 * while a frame is incomplete or unsent.
 */
#define _GNU_SOURCE
#include "accept_key.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256u * 1024u)
#define MESSAGE_LIMIT (16u * 1024u * 1024u)
#define TICK_MS 100

typedef struct conn {
    int fd;
    uint32_t member;       /* index in members[], UINT32_MAX if it is none */
    bool open, publisher, want_out, closing;
    uint8_t *in;           /* owned: an incomplete head or frame, NULL if none */
    uint8_t *out;          /* owned: what the kernel did not take, NULL if none */
    size_t in_len, out_len;
    struct conn *next_free; /* freed after the batch: an event of this batch may still name it */
} conn;

static int ep, listener;
static bool fanout;
static int64_t ping_ms, next_tick;
static uint64_t ping_credit; /* pings due, times ping_ms */
static uint32_t pinged;      /* the member pinged last */
static uint8_t *buf, *reply;
static conn **members, *doomed;
static uint32_t n_members, cap_members;

static void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "ceiling: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, ": %s\n", strerror(errno));
    va_end(ap);
    exit(2);
}
static void *grown(void *p, size_t n) {
    p = realloc(p, n);
    if (!p) die("out of memory");
    return p;
}

static void join(conn *c) {
    if (n_members == cap_members) {
        cap_members = cap_members ? cap_members * 2 : 1024;
        members = grown(members, cap_members * sizeof *members);
    }
    c->member = n_members;
    members[n_members++] = c;
}
static void end(conn *c) {
    if (c->fd < 0) return;
    close(c->fd);
    c->fd = -1;
    if (c->member != UINT32_MAX) { /* the last one takes its place */
        members[c->member] = members[--n_members];
        members[c->member]->member = c->member;
    }
    free(c->in), free(c->out);
    c->next_free = doomed;
    doomed = c;
}
static void watch(conn *c, bool out) {
    if (c->want_out == out) return;
    c->want_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
/* false: the connection has ended */
static bool put(conn *c, const uint8_t *p, size_t n) {
    size_t sent = 0;
    if (!c->out_len) {
        ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0 && errno != EAGAIN) {
            end(c);
            return false;
        }
        sent = r < 0 ? 0 : (size_t)r;
    }
    if (sent < n) {
        c->out = grown(c->out, c->out_len + n - sent);
        memcpy(c->out + c->out_len, p + sent, n - sent);
        c->out_len += n - sent;
        watch(c, true);
    }
    return true;
}
static void flush(conn *c) {
    ssize_t r = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r < 0) {
        if (errno != EAGAIN) end(c);
        return;
    }
    c->out_len -= (size_t)r;
    if (c->out_len) {
        memmove(c->out, c->out + r, c->out_len);
        return;
    }
    free(c->out);
    c->out = NULL;
    watch(c, false);
    if (c->closing) end(c);
}

static size_t head(uint8_t *o, int opcode, size_t n) {
    o[0] = (uint8_t)(0x80 | opcode);
    if (n < 126) {
        o[1] = (uint8_t)n;
        return 2;
    }
    if (n < 65536) {
        o[1] = 126, o[2] = (uint8_t)(n >> 8), o[3] = (uint8_t)n;
        return 4;
    }
    o[1] = 127;
    for (unsigned i = 0; i < 8; i++) o[2 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
    return 10;
}
static void unmask(uint8_t *o, const uint8_t *p, size_t n, const uint8_t mask[4]) {
    uint64_t m, w;
    uint8_t twice[8];
    memcpy(twice, mask, 4), memcpy(twice + 4, mask, 4), memcpy(&m, twice, 8);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&w, p + i, 8);
        w ^= m;
        memcpy(o + i, &w, 8);
    }
    for (; i < n; i++) o[i] = p[i] ^ mask[i & 3];
}

/* Serves every complete frame in p; returns the bytes used, or -1 when the connection ended. */
static ssize_t frames(conn *c, const uint8_t *p, size_t n) {
    size_t at = 0, replied = 0;
    while (n - at >= 2) {
        const uint8_t *f = p + at;
        size_t h = 2, len = f[1] & 127;
        int opcode = f[0] & 15;
        if (len == 126) {
            if (n - at < 4) break;
            len = (size_t)f[2] << 8 | f[3], h = 4;
        } else if (len == 127) {
            if (n - at < 10) break;
            len = 0, h = 10;
            for (unsigned i = 2; i < 10; i++) len = len << 8 | f[i];
        }
        if (!(f[1] & 0x80) || !(f[0] & 0x80) || f[0] & 0x70 || len > MESSAGE_LIMIT) {
            end(c);
            return -1;
        }
        if (n - at < h + 4 + len) break;
        at += h + 4 + len;
        if (opcode == 10) continue;
        uint8_t *o = reply + replied; /* a reply is never longer than its frame */
        size_t oh = head(o, opcode == 9 ? 10 : opcode, len);
        unmask(o + oh, f + h + 4, len, f + h);
        if (opcode < 3 && fanout) {
            for (uint32_t i = n_members; c->publisher && i-- > 0;) put(members[i], o, oh + len);
            continue;
        }
        replied += oh + len;
        if (opcode == 8) {
            c->closing = true;
            break;
        }
    }
    if (replied && !put(c, reply, replied)) return -1;
    if (c->closing && !c->out_len) {
        end(c);
        return -1;
    }
    return (ssize_t)at;
}
/* the same contract, for the request head */
static ssize_t handshake(conn *c, const uint8_t *p, size_t n) {
    const char *e = memmem(p, n, "\r\n\r\n", 4), *s = (const char *)p;
    if (!e && n < 16384) return 0;
    const char *key = NULL;
    for (const char *l = s; e && l < e; l = memmem(l, (size_t)(e + 2 - l), "\r\n", 2), l += 2)
        if (!strncasecmp(l, "sec-websocket-key: ", 19)) key = l + 19;
    if (!key || strncmp(s, "GET /", 5)) {
        end(c);
        return -1;
    }
    char accept[32], answer[256];
    accept_key(key, accept);
    int k = snprintf(answer, sizeof answer,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    c->open = true;
    c->publisher = !strncmp(s + 4, "/pub", 4);
    if ((fanout || ping_ms) && !c->publisher) join(c);
    return put(c, (const uint8_t *)answer, (size_t)k) ? e + 4 - s : -1;
}
static void readable(conn *c) {
    if (c->in_len) memcpy(buf, c->in, c->in_len);
    ssize_t r = recv(c->fd, buf + c->in_len, READ_BYTES, MSG_DONTWAIT);
    if (r <= 0) {
        if (r == 0 || errno != EAGAIN) end(c);
        return;
    }
    size_t n = c->in_len + (size_t)r, at = 0;
    if (!c->open) {
        ssize_t used = handshake(c, buf, n);
        if (used < 0) return;
        at = (size_t)used;
    }
    if (c->open) {
        ssize_t used = frames(c, buf + at, n - at);
        if (used < 0) return;
        at += (size_t)used;
    }
    c->in_len = n - at;
    if (!c->in_len) {
        free(c->in);
        c->in = NULL;
        return;
    }
    c->in = grown(c->in, c->in_len);
    memcpy(c->in, buf + at, c->in_len);
}
static void accept_some(void) {
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = grown(NULL, sizeof *c);
        *c = (conn){.fd = fd, .member = UINT32_MAX};
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    }
}
/* Pings whose turn it is; returns the milliseconds until the next tick, -1 for never. */
static int ping_some(void) {
    if (!ping_ms) return -1;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
    if (!next_tick) next_tick = now + TICK_MS;
    if (now < next_tick) return (int)(next_tick - now);
    next_tick = now + TICK_MS;
    ping_credit += (uint64_t)n_members * TICK_MS;
    for (; ping_credit >= (uint64_t)ping_ms && n_members; ping_credit -= (uint64_t)ping_ms) {
        pinged = pinged ? (pinged < n_members ? pinged : n_members) - 1 : n_members - 1;
        put(members[pinged], (const uint8_t *)"\x89", 2);
    }
    return TICK_MS;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4 || (strcmp(argv[2], "echo") && strcmp(argv[2], "fanout"))) {
        fprintf(stderr, "usage: ceiling PORT echo|fanout [PING_MS]\n");
        return 2;
    }
    fanout = !strcmp(argv[2], "fanout");
    ping_ms = argc > 3 ? atoi(argv[3]) : 0;
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    buf = grown(NULL, READ_BYTES + MESSAGE_LIMIT + 64);
    reply = grown(NULL, READ_BYTES + MESSAGE_LIMIT + 64);
    ep = epoll_create1(EPOLL_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&a, sizeof a)) die("bind to port %s", argv[1]);
    if (listen(listener, 4096)) die("listen");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, ev[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, ev, 512, ping_some());
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            if (!c) accept_some();
            else if (c->fd >= 0) {
                if (ev[i].events & EPOLLOUT) flush(c);
                if (c->fd >= 0 && ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
            }
        }
        for (conn *c; (c = doomed);) {
            doomed = c->next_free;
            free(c);
        }
    }
}
