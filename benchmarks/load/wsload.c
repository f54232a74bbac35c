/*
 * wsload - a WebSocket (RFC 6455) CLIENT load generator.
 * C11, Linux epoll, one thread, no dependencies.
 *
 *   build:  gcc -O3 -march=native -std=gnu11 -Wall -Wextra -o wsload wsload.c -lm
 *   use:    wsload MODE [options]          MODE = echo | idle | fanout | churn
 *
 * It only makes sense against your own server on loopback; it never resolves names.
 *
 * COMMON OPTIONS
 *   --host A           IPv4 address of the server                  (127.0.0.1)
 *   --dst-count N      spread connections over N addresses A, A+1, ... (the server
 *                      must listen on 0.0.0.0)                     (1)
 *   --src-base A       first source address to bind                (kernel's choice)
 *   --src-count N      spread connections over N source addresses  (1)
 *                      (one src/dst pair has ~28k ports: 50k conns need two pairs)
 *   --port P  --path S  --header 'K: V' (repeatable)
 *   --tokens-file F    line i%n of F is sent as 'Authorization: Bearer <line>' by
 *                      connection i (distinct JWTs: a token cache gets no free ride)
 *   --conns N          connections                                 (100)
 *   --connect-rate R   at most R new connections a second          (0 = no limit)
 *   --inflight N       handshakes in flight at once                (256)
 *   --connect-timeout S  give up on the connect phase after S s    (60)
 *   --seconds T        length of the measured / hold phase         (5)
 *   --pid P            server's pid: report RSS and CPU of it and all its children
 *   --payload-file F   the message text; else --size S bytes of generated JSON
 *                      (compact, keys sorted: every JSON library re-encodes it to
 *                      the same bytes)                             (64)
 *   --expect exact | contains | prefix:STR | count      how replies are checked (exact)
 *   --count-only       same as --expect count
 *                      contains: the reply is an envelope that holds the text verbatim
 *   --skip K  ignore the first K text messages on each connection (a welcome, a join's answer)
 *   --hello STR        a text message each connection sends once after the handshake
 *   --pub-prefix STR  --pub-suffix STR    wrap what is sent (for a hub with an envelope)
 *                      '%d' in these three stands for the connection's number; %d in the
 *                      payload itself is left alone
 *   --seed N  --json (one JSON object on stdout)  --label S (copied to the result)
 *
 * echo    --depth D (1)  --warmup S (0.5)
 *   Closed loop: each connection keeps D messages in flight for T seconds.
 *   Every reply must be an unfragmented-or-fragmented TEXT message whose payload is
 *   byte-identical. Latency is send() to recv() of the whole reply, in a log-linear
 *   histogram (1/64 relative error). Being a closed loop, it measures service time
 *   under constant concurrency, not response time at a fixed arrival rate.
 *   For speed the frames are pre-masked (a pool of frames, each with its own random
 *   mask) and several credits go out in one send(); reads are batched likewise.
 *   `client_cpu` near 1.0 means wsload itself, not the server, was the limit.
 *   With --pub-prefix / --pub-suffix every connection has frames of its own, and
 *   latency and msgs_per_s still count one for each reply.
 *
 * idle    opens N connections as fast as it can (bounded by --inflight), reports
 *   handshakes/s (101 status and Sec-WebSocket-Accept verified), waits --settle S (1),
 *   then holds T seconds, answering pings; reports pings per connection, RSS before /
 *   after connect / after hold, bytes per connection, server CPU s in both phases.
 *   --notify           says '@connected' on stderr when all are connected and settled, and
 *                      ends the hold early when stdin reaches its end
 *
 * fanout  N subscribers (+1 publisher connection on --pub-path). Each subscriber sends
 *   --hello STR once if given (the publisher does not), and ignores its first --skip K
 *   messages; then the publisher sends --count M messages, R a second with --rate R, or, with --rate 0,
 *   keeping --window W (1) broadcasts unfinished. Message text is
 *   {"pad":"xx..","seq":"0000000000","type":"pub"} of --size bytes; subscribers expect
 *   exactly that text in order (with --expect contains: inside an envelope, in order all
 *   the same, since the text holds its sequence number). Ends when all N*M arrived, or --seconds after the
 *   last publish. `delivery` = publisher's send() to each subscriber's recv();
 *   `broadcast` = to the last subscriber's recv().
 *
 * churn   keeps N connections going for T seconds; each ends, after 0..--linger-ms (50)
 *   and one echo message, in a random way: RST (SO_LINGER 0), FIN without close frame,
 *   FIN in the middle of a frame, FIN or RST in mid-handshake, clean close (close frame
 *   answered, then EOF), or silent (stays open, never answers anything, until the
 *   server drops it or the run ends; at most half of N are silent at once).
 *   Exit status 1 if the server refused new connections at the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include "accept_key.h"

/* ------------------------------------------------------------------ utilities */
static void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "wsload: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(2);
}
static void *xcalloc(size_t n, size_t s) {
    void *p = calloc(n ? n : 1, s ? s : 1);
    if (!p) die("out of memory");
    return p;
}
static inline uint64_t nowns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
static uint64_t rng_s;
static inline uint64_t rnd(void) { /* splitmix64 */
    uint64_t z = (rng_s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* log-linear histogram of nanoseconds: 64 sub-buckets per power of two */
typedef struct { uint64_t n, max, sum, b[64 * 60]; } hist;
static inline void hist_add(hist *h, uint64_t v) {
    unsigned i;
    if (v < 128) i = (unsigned)v;
    else {
        unsigned e = 63u - (unsigned)__builtin_clzll(v) - 6u;
        i = e * 64 + (unsigned)(v >> e);
    }
    h->b[i]++, h->n++, h->sum += v;
    if (v > h->max) h->max = v;
}
static double hist_q(const hist *h, double q) { /* microseconds */
    if (!h->n) return 0;
    uint64_t want = (uint64_t)ceil(q * (double)h->n), c = 0;
    for (unsigned i = 0; i < 64 * 60; i++)
        if ((c += h->b[i]) >= want) {
            uint64_t v;
            if (i < 128) v = i;
            else {
                unsigned e = i / 64 - 1;
                v = ((uint64_t)(i - e * 64) << e) + ((1ull << e) >> 1);
            }
            return (double)(v > h->max ? h->max : v) / 1e3;
        }
    return (double)h->max / 1e3;
}

/* results: printed as they are known, or as one JSON object at the end */
static bool o_json;
static char outbuf[1 << 16];
static size_t outlen;
static void emit_raw(const char *k, const char *v, bool quote) {
    size_t left = sizeof outbuf - outlen;
    int n = snprintf(outbuf + outlen, left, "%s\"%s\":%s%s%s", outlen ? "," : "", k, quote ? "\"" : "", v, quote ? "\"" : "");
    if (n > 0 && (size_t)n < left) outlen += (size_t)n;
    if (!o_json) printf("%-24s %s\n", k, v);
}
static void emit_s(const char *k, const char *v) { emit_raw(k, v, true); }
static void emit_f(const char *k, double v, int prec) {
    char b[64];
    snprintf(b, sizeof b, "%.*f", prec, v);
    emit_raw(k, b, false);
}
static void emit_i(const char *k, long long v) {
    char b[64];
    snprintf(b, sizeof b, "%lld", v);
    emit_raw(k, b, false);
}
static void emit_hist(const char *name, const hist *h) {
    char k[64];
    static const struct { const char *s; double q; } qs[] = {{"p50", .5}, {"p99", .99}, {"p999", .999}};
    for (int i = 0; i < 3; i++) {
        snprintf(k, sizeof k, "%s_%s_us", name, qs[i].s);
        emit_f(k, hist_q(h, qs[i].q), 1);
    }
    snprintf(k, sizeof k, "%s_max_us", name);
    emit_f(k, (double)h->max / 1e3, 1);
}

/* ------------------------------------------------------------------ server's /proc */
typedef struct { double cpu; long long rss; int procs; } pstat;
static int o_pid;
static double proc_cpu(int pid) {
    clockid_t c;
    struct timespec t;
    if (clock_getcpuclockid(pid, &c) == 0 && clock_gettime(c, &t) == 0)
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    return 0;
}
static pstat proc_stat(void) { /* --pid and all its descendants */
    pstat r = {0, 0, 0};
    if (!o_pid) return r;
    int set[4096], n = 1;
    set[0] = o_pid;
    for (bool grew = true; grew;) {
        grew = false;
        DIR *d = opendir("/proc");
        if (!d) break;
        for (struct dirent *e; (e = readdir(d));) {
            int pid = atoi(e->d_name), ppid = 0;
            if (pid <= 0) continue;
            bool have = false, kid = false;
            for (int i = 0; i < n; i++) have |= set[i] == pid;
            if (have || n == 4096) continue;
            char p[64], b[512];
            snprintf(p, sizeof p, "/proc/%d/stat", pid);
            FILE *f = fopen(p, "r");
            if (!f) continue;
            size_t k = fread(b, 1, sizeof b - 1, f);
            fclose(f);
            b[k] = 0;
            char *q = strrchr(b, ')');
            if (!q || sscanf(q + 1, " %*c %d", &ppid) != 1) continue;
            for (int i = 0; i < n; i++) kid |= set[i] == ppid;
            if (kid) set[n++] = pid, grew = true;
        }
        closedir(d);
    }
    for (int i = 0; i < n; i++) {
        char p[64], b[256];
        snprintf(p, sizeof p, "/proc/%d/status", set[i]);
        FILE *f = fopen(p, "r");
        if (!f) continue;
        long kb;
        while (fgets(b, sizeof b, f))
            if (sscanf(b, "VmRSS: %ld", &kb) == 1) r.rss += (long long)kb * 1024;
        fclose(f);
        r.cpu += proc_cpu(set[i]);
        r.procs++;
    }
    return r;
}

/* ------------------------------------------------------------------ state */
enum { ST_FREE, ST_CONNECTING, ST_HANDSHAKE, ST_OPEN, ST_CLOSING, ST_DEAD };
enum { END_RST, END_FIN, END_MIDFRAME, END_MIDHS_FIN, END_MIDHS_RST, END_CLEAN, END_SILENT, END_N };
static const char *END_NAME[END_N] = {"rst", "fin", "fin_midframe", "fin_midhandshake", "rst_midhandshake", "clean", "silent"};

typedef struct conn {
    int fd;
    uint32_t id;
    uint8_t state, want_out;
    /* incoming frame */
    uint8_t hdr[14], hdr_len, hdr_need, in_payload, opcode, msg_op, fin, bad, ctl_len;
    uint64_t pay_left, msg_off;
    uint8_t ctl[125];
    /* outgoing: a slice of the frame pool, then a small private buffer, then credits */
    const uint8_t *tx;
    size_t tx_left;
    uint8_t *obuf;
    size_t olen, ocap;
    uint32_t credits, head, tail;
    uint64_t *ts;
    /* handshake */
    char *hs;
    uint32_t hs_len;
    char accept[32];
    uint64_t t_start;
    /* mode's own */
    uint32_t nmsg, skip;
    uint32_t pings;
    uint8_t end_kind, got_close;
    uint64_t t_end;
    /* frames of its own, if what it sends holds its number; a message that came in pieces */
    uint8_t *pool, *mbuf;
    size_t flen, mcap;
} conn;

static enum { M_ECHO, M_IDLE, M_FANOUT, M_CHURN } mode;
static const char *o_host = "127.0.0.1", *o_srcbase, *o_path = "/", *o_pubpath, *o_hello, *o_pre = "", *o_suf = "", *o_label;
static int o_port = 8000, o_conns = 100, o_dst = 1, o_src = 1, o_inflight = 256, o_depth = 1, o_count = 100, o_window = 1, o_skip, o_linger = 50;
static double o_rate_conn, o_seconds = 5, o_warmup = 0.5, o_settle = 1, o_rate, o_ctimeout = 60;
static size_t o_size = 64;
static char o_headers[8192];
static char **tokens;
static size_t ntokens;
static enum { EX_EXACT, EX_PREFIX, EX_COUNT, EX_CONTAINS } expect = EX_EXACT;
static uint8_t *payload;
static size_t plen;
static const char *xprefix;
static size_t xprefix_len;

static int ep;
static conn *conns;
static int nopen, ninflight, nfailed, nstarted;
static uint8_t *rbuf;
#define RBUF (256 * 1024)

static uint8_t *pool; /* pre-masked frames of the payload */
static size_t flen;
static uint32_t pool_n;

static hist H, H2, HH;
static uint64_t n_replies, n_bad, n_lost, n_pings, n_protoerr, n_data_other, t_meas0, t_meas1;
static bool measuring, stopping, o_notify, stdin_ended;
static uint64_t bytes_in;

/* fanout */
static uint8_t **fmsg;
static uint64_t *fts, *fleft, fdelivered, fpublished, fdone;
static conn *pub;

/* churn */
static uint64_t ch_end[END_N], ch_opened, ch_fail, ch_srv_closed, ch_clean_ok, ch_echo_ok;
static int ch_silent;

static void conn_lost(conn *c, const char *why);

/* ------------------------------------------------------------------ sending */
static size_t put_frame(uint8_t *o, int op, const uint8_t *p, size_t n) {
    size_t h = 2;
    o[0] = (uint8_t)(0x80 | op);
    if (n < 126) o[1] = (uint8_t)(0x80 | n);
    else if (n < 65536) o[1] = 0x80 | 126, o[2] = (uint8_t)(n >> 8), o[3] = (uint8_t)n, h = 4;
    else {
        o[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) o[2 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
        h = 10;
    }
    uint32_t mk = (uint32_t)rnd();
    uint8_t m[4];
    memcpy(m, &mk, 4);
    memcpy(o + h, m, 4);
    h += 4;
    for (size_t i = 0; i < n; i++) o[h + i] = p[i] ^ m[i & 3];
    return h + n;
}
static void set_out(conn *c, bool on) {
    if (c->want_out == on) return;
    c->want_out = on;
    struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
/* returns bytes sent, 0 on EAGAIN, -1 when the connection was lost */
static ssize_t tx_some(conn *c, const uint8_t *p, size_t n) {
    ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r >= 0) return r;
    if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) return 0;
    conn_lost(c, strerror(errno));
    return -1;
}
static void pump(conn *c) {
    for (;;) {
        if (c->tx_left) {
            ssize_t r = tx_some(c, c->tx, c->tx_left);
            if (r < 0) return;
            c->tx += r, c->tx_left -= (size_t)r;
            if (c->tx_left) { set_out(c, true); return; }
        }
        if (c->olen) {
            ssize_t r = tx_some(c, c->obuf, c->olen);
            if (r < 0) return;
            c->olen -= (size_t)r;
            if (c->olen) {
                memmove(c->obuf, c->obuf + r, c->olen);
                set_out(c, true);
                return;
            }
        }
        if (!c->credits || stopping || c->state != ST_OPEN) break;
        uint32_t k = c->credits < pool_n ? c->credits : pool_n;
        const uint8_t *frames = c->pool ? c->pool : pool;
        size_t each = c->pool ? c->flen : flen;
        c->tx = frames + (k == pool_n ? 0 : rnd() % (pool_n - k + 1)) * each;
        c->tx_left = k * each;
        c->credits -= k;
        uint64_t t = nowns();
        for (uint32_t i = 0; i < k; i++) c->ts[c->tail++ % (uint32_t)o_depth] = t;
    }
    if (c->want_out) set_out(c, false);
}
static void out_small(conn *c, const uint8_t *p, size_t n) {
    if (c->olen + n > c->ocap) {
        c->ocap = (c->olen + n) * 2;
        c->obuf = realloc(c->obuf, c->ocap);
        if (!c->obuf) die("out of memory");
    }
    memcpy(c->obuf + c->olen, p, n);
    c->olen += n;
    pump(c);
}
static void send_frame(conn *c, int op, const uint8_t *p, size_t n) {
    uint8_t small[256], *b = n + 14 <= sizeof small ? small : xcalloc(1, n + 14);
    size_t k = put_frame(b, op, p, n);
    out_small(c, b, k);
    if (b != small) free(b);
}
static void close_fd(conn *c, bool rst) {
    if (c->fd < 0) return;
    if (rst) {
        struct linger l = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    c->fd = -1;
    free(c->obuf), free(c->hs), free(c->mbuf), free(c->pool);
    c->obuf = c->mbuf = c->pool = NULL, c->mcap = 0, c->hs = NULL, c->olen = c->ocap = c->tx_left = 0;
}

/* ------------------------------------------------------------------ connecting */
static void conn_start(conn *c) {
    uint32_t id = c->id;
    uint64_t *ts = c->ts;
    memset(c, 0, sizeof *c);
    c->id = id, c->ts = ts, c->hdr_need = 2, c->skip = (uint32_t)o_skip;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET};
    if (o_srcbase) {
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        a.sin_addr.s_addr = htonl(ntohl(inet_addr(o_srcbase)) + id % (uint32_t)o_src);
        if (bind(c->fd, (struct sockaddr *)&a, sizeof a)) die("bind: %s", strerror(errno));
    }
    a.sin_addr.s_addr = htonl(ntohl(inet_addr(o_host)) + (id / (uint32_t)o_src) % (uint32_t)o_dst);
    a.sin_port = htons((uint16_t)o_port);
    c->t_start = nowns();
    c->state = ST_CONNECTING;
    nstarted++, ninflight++;
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) {
        conn_lost(c, strerror(errno));
        return;
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    c->want_out = 1;
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl: %s", strerror(errno));
}
static void conn_request(conn *c) {
    uint8_t key[16];
    char k64[32], req[12288];
    for (int i = 0; i < 16; i += 8) {
        uint64_t r = rnd();
        memcpy(key + i, &r, 8);
    }
    base64(key, 16, k64);
    accept_key(k64, c->accept);
    int n = snprintf(req, sizeof req,
                 "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s",
                 c == pub && o_pubpath ? o_pubpath : o_path, o_host, o_port, k64, o_headers);
    if (ntokens) n += snprintf(req + n, sizeof req - (size_t)n, "Authorization: Bearer %s\r\n", tokens[c->id % ntokens]);
    n += snprintf(req + n, sizeof req - (size_t)n, "\r\n");
    c->state = ST_HANDSHAKE;
    if (mode == M_CHURN && (c->end_kind == END_MIDHS_FIN || c->end_kind == END_MIDHS_RST))
        n = (int)(rnd() % (uint64_t)n);
    if (n) out_small(c, (uint8_t *)req, (size_t)n);
    else set_out(c, false);
}
static void conn_lost(conn *c, const char *why) {
    static int shown;
    if (c->state == ST_CONNECTING || c->state == ST_HANDSHAKE) {
        ninflight--, nfailed++;
        if (mode == M_CHURN) ch_fail++;
        if (shown++ < 3) fprintf(stderr, "wsload: conn %u failed in handshake: %s\n", c->id, why);
    } else if (c->state == ST_OPEN) {
        nopen--;
        if (mode != M_CHURN && !stopping) {
            n_lost++;
            if (shown++ < 3) fprintf(stderr, "wsload: conn %u lost: %s\n", c->id, why);
        }
        if (mode == M_CHURN) ch_srv_closed++;
    } else if (c->state == ST_CLOSING && mode == M_CHURN && c->got_close) ch_clean_ok++;
    if (mode == M_CHURN && c->end_kind == END_SILENT && c->state == ST_OPEN) ch_silent--;
    c->state = ST_DEAD;
    close_fd(c, true);
}

/* ------------------------------------------------------------------ receiving */
/* t with every '%d' replaced by the connection's number; the caller frees it */
static char *numbered(const char *t, uint32_t id) {
    char num[16], *out = xcalloc(1, strlen(t) * 6 + 1), *o = out;
    snprintf(num, sizeof num, "%u", id);
    for (; *t; t++)
        if (t[0] == '%' && t[1] == 'd') {
            o = stpcpy(o, num);
            t++;
        } else *o++ = *t;
    return out;
}
/* prefix + p + suffix of connection id; the caller frees it */
static uint8_t *wrapped(uint32_t id, const uint8_t *p, size_t n, size_t *total) {
    char *pre = numbered(o_pre, id), *suf = numbered(o_suf, id);
    size_t np = strlen(pre), ns = strlen(suf);
    uint8_t *b = xcalloc(1, np + n + ns);
    memcpy(b, pre, np), memcpy(b + np, p, n), memcpy(b + np + n, suf, ns);
    free(pre), free(suf);
    *total = np + n + ns;
    return b;
}
static void publish_next(void) {
    uint64_t i = fpublished++;
    size_t n;
    uint8_t *b = wrapped(pub->id, fmsg[i], plen, &n);
    fts[i] = nowns();
    send_frame(pub, 1, b, n);
    free(b);
}
static inline const uint8_t *expected_of(conn *c) {
    return mode == M_FANOUT ? (c->nmsg < (uint32_t)o_count ? fmsg[c->nmsg] : NULL) : payload;
}
static inline bool holds_expected(conn *c, const uint8_t *p, size_t n) {
    const uint8_t *x = expected_of(c), *end = p + n;
    size_t k = plen < 16 ? plen : 16; /* memmem prepares a long needle anew at each call: 30 us for 16 KB */
    while (x && (p = memmem(p, (size_t)(end - p), x, k)) && (size_t)(end - p) >= plen) {
        if (!memcmp(p, x, plen)) return true;
        p++;
    }
    return false;
}
static inline void on_chunk(conn *c, const uint8_t *p, size_t n) {
    if (expect == EX_CONTAINS) {
        if (c->skip) return;
        bool ends = n == c->pay_left && c->fin;
        if (!c->msg_off && ends) { /* the usual case: all of it lies in the receive buffer */
            c->bad = !holds_expected(c, p, n);
            return;
        }
        if (c->msg_off + n > c->mcap) {
            c->mcap = (size_t)(c->msg_off + c->pay_left);
            c->mbuf = realloc(c->mbuf, c->mcap);
            if (!c->mbuf) die("out of memory");
        }
        memcpy(c->mbuf + c->msg_off, p, n);
        if (ends) c->bad = !holds_expected(c, c->mbuf, (size_t)c->msg_off + n);
    } else if (expect == EX_EXACT) {
        if (c->skip) return;
        const uint8_t *x = expected_of(c);
        if (!x || c->msg_off + n > plen || memcmp(p, x + c->msg_off, n)) c->bad = 1;
    } else if (expect == EX_PREFIX && c->msg_off < xprefix_len) {
        size_t k = xprefix_len - c->msg_off;
        if (k > n) k = n;
        if (memcmp(p, xprefix + c->msg_off, k)) c->bad = 1;
    }
}
static inline void on_message(conn *c, uint64_t now) {
    bool ok = !c->bad && c->msg_op == 1 && (expect != EX_EXACT || c->msg_off == plen) &&
              (expect != EX_CONTAINS || c->msg_off >= plen) &&
              (expect != EX_PREFIX || c->msg_off >= xprefix_len);
    if (c->skip) { c->skip--; return; }
    if (mode == M_ECHO) {
        if (c->head == c->tail) { n_protoerr++; return; }
        uint64_t t = c->ts[c->head++ % (uint32_t)o_depth];
        if (measuring && now < t_meas1) {
            n_replies++;
            hist_add(&H, now - t);
        }
        if (!ok) n_bad++; /* in the warm-up too */
        c->credits++;
    } else if (mode == M_FANOUT) {
        if (c == pub || c->nmsg >= fpublished) { n_data_other++; return; }
        uint32_t i = c->nmsg++;
        if (!ok) n_bad++;
        fdelivered++;
        hist_add(&H, now - fts[i]);
        if (--fleft[i] == 0) {
            fdone++;
            hist_add(&H2, now - fts[i]);
            if (o_rate <= 0 && fpublished < (uint64_t)o_count) publish_next();
        }
    } else if (mode == M_CHURN) {
        if (ok) ch_echo_ok++;
        else n_bad++;
    } else n_data_other++;
}
static void on_control(conn *c) {
    bool mute = mode == M_CHURN && c->end_kind == END_SILENT;
    if (c->opcode == 9) {
        c->pings++, n_pings++;
        if (!mute && c->state == ST_OPEN) send_frame(c, 10, c->ctl, c->ctl_len);
    } else if (c->opcode == 8) {
        c->got_close = 1;
        if (c->state == ST_OPEN && !mute) {
            if (mode != M_CHURN && !stopping) {
                static int shown;
                if (shown++ < 3)
                    fprintf(stderr, "wsload: conn %u: server sent close %d\n", c->id, c->ctl_len >= 2 ? c->ctl[0] << 8 | c->ctl[1] : 0);
            }
            send_frame(c, 8, c->ctl, c->ctl_len >= 2 ? 2 : 0);
        }
    }
}
static void feed(conn *c, const uint8_t *p, size_t n, uint64_t now) {
    while (n || (c->in_payload && !c->pay_left)) {
        if (!c->in_payload) {
            while (c->hdr_len < c->hdr_need && n) {
                c->hdr[c->hdr_len++] = *p++, n--;
                if (c->hdr_len == 2) {
                    uint8_t l = c->hdr[1] & 127;
                    if (c->hdr[1] & 0x80 || c->hdr[0] & 0x70) { n_protoerr++; conn_lost(c, "masked frame or RSV bits from server"); return; }
                    c->hdr_need = (uint8_t)(2 + (l == 126 ? 2 : l == 127 ? 8 : 0));
                }
            }
            if (c->hdr_len < c->hdr_need) return;
            uint64_t l = c->hdr[1] & 127;
            if (l == 126) l = (uint64_t)c->hdr[2] << 8 | c->hdr[3];
            else if (l == 127) {
                l = 0;
                for (int i = 2; i < 10; i++) l = l << 8 | c->hdr[i];
            }
            c->opcode = c->hdr[0] & 15, c->fin = c->hdr[0] >> 7;
            c->pay_left = l, c->hdr_len = 0, c->hdr_need = 2, c->in_payload = 1;
            if (c->opcode >= 8) {
                c->ctl_len = 0;
                if (l > 125 || !c->fin) { n_protoerr++; conn_lost(c, "bad control frame"); return; }
            } else if (c->opcode) c->msg_op = c->opcode, c->msg_off = 0, c->bad = expect == EX_CONTAINS;
        }
        size_t k = n < c->pay_left ? n : (size_t)c->pay_left;
        if (c->opcode >= 8) memcpy(c->ctl + c->ctl_len, p, k), c->ctl_len = (uint8_t)(c->ctl_len + k);
        else if (k) on_chunk(c, p, k), c->msg_off += k;
        p += k, n -= k, c->pay_left -= k;
        if (!c->pay_left) {
            c->in_payload = 0;
            if (c->opcode >= 8) on_control(c);
            else if (c->fin) on_message(c, now);
            if (c->fd < 0) return;
        }
    }
}
static void on_open(conn *c);
static void handshake_data(conn *c, const uint8_t *p, size_t n, uint64_t now) {
    if (!c->hs) c->hs = xcalloc(1, 8193);
    size_t k = 8192 - c->hs_len;
    if (k > n) k = n;
    memcpy(c->hs + c->hs_len, p, k);
    size_t before = c->hs_len;
    c->hs_len += (uint32_t)k;
    c->hs[c->hs_len] = 0;
    char *e = strstr(c->hs, "\r\n\r\n");
    if (!e) {
        if (c->hs_len == 8192) conn_lost(c, "response head too long");
        return;
    }
    size_t used = (size_t)(e + 4 - c->hs) - before;
    if (strncmp(c->hs, "HTTP/1.1 101", 12)) {
        char line[80];
        snprintf(line, sizeof line, "%.60s", c->hs);
        line[strcspn(line, "\r\n")] = 0;
        conn_lost(c, line);
        return;
    }
    bool ok = false;
    for (char *l = strstr(c->hs, "\r\n"); l && l < e; l = strstr(l + 2, "\r\n"))
        if (!strncasecmp(l + 2, "sec-websocket-accept:", 21)) {
            char *v = l + 23;
            while (*v == ' ') v++;
            ok = !strncmp(v, c->accept, strlen(c->accept)) && v[strlen(c->accept)] == '\r';
        }
    if (!ok) { conn_lost(c, "wrong Sec-WebSocket-Accept"); return; }
    ninflight--, nopen++;
    c->state = ST_OPEN;
    hist_add(&HH, now - c->t_start);
    char *old = c->hs;
    c->hs = NULL;
    on_open(c);
    if (c->fd >= 0 && used < n) feed(c, p + used, n - used, now);
    free(old);
}
static void handle(struct epoll_event *ev) {
    conn *c = ev->data.ptr;
    if (!c) { /* stdin, with --notify */
        char b[64];
        if (read(STDIN_FILENO, b, sizeof b) <= 0) stdin_ended = true;
        return;
    }
    if (c->fd < 0) return;
    if (c->state == ST_CONNECTING) {
        int err = 0;
        socklen_t l = sizeof err;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &l);
        if (err) { conn_lost(c, strerror(err)); return; }
        if (!(ev->events & EPOLLOUT)) return;
        conn_request(c);
        return;
    }
    if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t r = recv(c->fd, rbuf, RBUF, MSG_DONTWAIT);
        if (r > 0) {
            uint64_t now = nowns();
            bytes_in += (uint64_t)r;
            if (c->state == ST_HANDSHAKE) handshake_data(c, rbuf, (size_t)r, now);
            else feed(c, rbuf, (size_t)r, now);
            if (c->fd < 0) return;
            if (c->credits || (ev->events & EPOLLOUT)) pump(c);
            return;
        }
        if (r == 0) { conn_lost(c, "EOF"); return; }
        if (errno != EAGAIN && errno != EINTR) { conn_lost(c, strerror(errno)); return; }
    }
    if (ev->events & EPOLLOUT) pump(c);
}
static void poll_once(int ms) {
    struct epoll_event ev[512];
    int n = epoll_wait(ep, ev, 512, ms);
    for (int i = 0; i < n; i++) handle(&ev[i]);
}
static void on_open(conn *c) {
    if (o_hello && c != pub) {
        char *hello = numbered(o_hello, c->id);
        send_frame(c, 1, (const uint8_t *)hello, strlen(hello));
        free(hello);
    }
    if (mode == M_CHURN) {
        if (c->end_kind != END_SILENT) send_frame(c, 1, payload, plen);
        c->t_end = nowns() + (o_linger ? rnd() % (uint64_t)o_linger : 0) * 1000000ull;
    }
}

/* open n connections starting at conns[0]; returns seconds to the last handshake */
static double connect_all(int n) {
    uint64_t t0 = nowns();
    int next = 0;
    while (nopen + nfailed < n) {
        uint64_t now = nowns();
        if ((double)(now - t0) > o_ctimeout * 1e9) break;
        int lim = n;
        if (o_rate_conn > 0) {
            double k = (double)(now - t0) / 1e9 * o_rate_conn + 1;
            if (k < lim) lim = (int)k;
        }
        int burst = 64; /* accept work and responses alternate */
        while (next < lim && ninflight < o_inflight && burst--) conn_start(&conns[next++]);
        poll_once(next < n && ninflight < o_inflight ? (o_rate_conn > 0 ? 1 : 0) : 10);
    }
    return (double)(nowns() - t0) / 1e9;
}
static void close_all(int n) {
    stopping = true;
    uint64_t t = nowns() + 100000000ull; /* let what is in flight drain */
    for (; nowns() < t && mode == M_ECHO;) poll_once(10);
    for (int i = 0; i < n; i++)
        if (conns[i].fd >= 0 && conns[i].state == ST_OPEN) {
            uint8_t code[2] = {0x03, 0xe8};
            nopen--;
            conns[i].state = ST_CLOSING;
            send_frame(&conns[i], 8, code, 2);
            if (i % 64 == 0) poll_once(0);
        }
    t = nowns() + 1000000000ull + (unsigned)n * 100000ull;
    int left = 1;
    while (left && nowns() < t) {
        poll_once(20);
        left = 0;
        for (int i = 0; i < n; i++) left += conns[i].fd >= 0 && conns[i].state == ST_CLOSING;
    }
    for (int i = 0; i < n; i++) close_fd(&conns[i], true);
}

/* ------------------------------------------------------------------ payloads */
static void make_payload(const char *file) {
    if (file) {
        FILE *f = fopen(file, "rb");
        if (!f) die("%s: %s", file, strerror(errno));
        payload = xcalloc(1, 1 << 24);
        plen = fread(payload, 1, 1 << 24, f);
        fclose(f);
        while (plen && (payload[plen - 1] == '\n')) plen--;
        return;
    }
    size_t cap = o_size + 512;
    char *b = xcalloc(1, cap);
    size_t n;
    if (mode == M_FANOUT) {
        static const char T[] = "\",\"seq\":\"0000000000\",\"type\":\"pub\"}";
        n = (size_t)sprintf(b, "{\"pad\":\"");
        while (n + sizeof T - 1 < o_size) b[n] = (char)('a' + n % 26), n++;
        n += (size_t)sprintf(b + n, "%s", T);
    } else if (o_size < 160) {
        n = (size_t)sprintf(b, "{\"id\":1234567,\"text\":\"");
        static const char T[] = "\",\"type\":\"message\"}";
        while (n + sizeof T - 1 < o_size) b[n] = (char)('a' + n % 26), n++;
        n += (size_t)sprintf(b + n, "%s", T);
    } else { /* an array of records, then padding */
        n = (size_t)sprintf(b, "{\"id\":1234567,\"items\":[");
        static const char T[] = "\",\"type\":\"message\"}";
        for (int i = 0; n + 150 < o_size; i++)
            n += (size_t)sprintf(b + n, "%s{\"active\":%s,\"name\":\"user-%05d\",\"price\":%d.25,\"qty\":%d,\"tags\":[\"red\",\"blue\"]}",
                                 i ? "," : "", i & 1 ? "true" : "false", i, 100 + i, i * 7 % 100);
        n += (size_t)sprintf(b + n, "],\"pad\":\"");
        while (n + sizeof T - 1 < o_size) b[n] = (char)('a' + n % 26), n++;
        n += (size_t)sprintf(b + n, "%s", T);
    }
    payload = (uint8_t *)b, plen = n;
}
static uint8_t *masked_frames(const uint8_t *p, size_t n, uint32_t count, size_t *each) {
    uint8_t *first = xcalloc(1, n + 14);
    *each = put_frame(first, 1, p, n);
    free(first);
    uint8_t *frames = xcalloc(count, *each);
    for (uint32_t i = 0; i < count; i++) put_frame(frames + i * *each, 1, p, n);
    return frames;
}
static void make_pool(void) {
    pool_n = (uint32_t)(262144 / (plen + 14));
    if (pool_n < (uint32_t)o_depth) pool_n = (uint32_t)o_depth;
    if (pool_n < 8) pool_n = 8;
    if (pool_n > 1024) pool_n = 1024;
    if (!*o_pre && !*o_suf) {
        pool = masked_frames(payload, plen, pool_n, &flen);
        return;
    }
    pool_n = (uint32_t)o_depth < 4 ? 4 : (uint32_t)o_depth; /* each connection has its own */
    for (int i = 0; i < o_conns; i++) {
        size_t n;
        uint8_t *b = wrapped(conns[i].id, payload, plen, &n);
        if (conns[i].state == ST_OPEN) conns[i].pool = masked_frames(b, n, pool_n, &conns[i].flen);
        free(b);
    }
}

/* ------------------------------------------------------------------ modes */
static double self_cpu(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)r.ru_utime.tv_sec + (double)r.ru_stime.tv_sec + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}
static void emit_connect(double t, int n) {
    emit_i("conns", n);
    emit_i("connected", nopen);
    emit_i("connect_failed", nfailed + (n - nopen - nfailed));
    emit_f("connect_s", t, 3);
    emit_f("handshakes_per_s", t > 0 ? (double)nopen / t : 0, 0);
}
static int run_echo(void) {
    for (int i = 0; i < o_conns; i++) conns[i].ts = xcalloc((size_t)o_depth, 8);
    double ct = connect_all(o_conns);
    emit_connect(ct, o_conns);
    if (!nopen) return 1;
    make_pool();
    for (int i = 0; i < o_conns; i++)
        if (conns[i].state == ST_OPEN) conns[i].credits = (uint32_t)o_depth, pump(&conns[i]);
    uint64_t t = nowns() + (uint64_t)(o_warmup * 1e9);
    while (nowns() < t) poll_once(20);
    pstat p0 = proc_stat();
    double c0 = self_cpu();
    measuring = true;
    t_meas0 = nowns();
    t_meas1 = t_meas0 + (uint64_t)(o_seconds * 1e9);
    while (nowns() < t_meas1) poll_once(20);
    measuring = false;
    double wall = (double)(nowns() - t_meas0) / 1e9, c1 = self_cpu();
    pstat p1 = proc_stat();
    emit_i("size", (long long)plen);
    emit_i("depth", o_depth);
    emit_f("seconds", o_seconds, 2);
    emit_i("messages", (long long)n_replies);
    emit_f("msgs_per_s", (double)n_replies / o_seconds, 0);
    emit_f("payload_MB_per_s", (double)n_replies * (double)plen / o_seconds / 1e6, 1);
    emit_hist("lat", &H);
    emit_f("client_cpu", (c1 - c0) / wall, 3);
    if (o_pid) {
        emit_f("server_cpu", (p1.cpu - p0.cpu) / wall, 3);
        emit_f("server_us_per_msg", n_replies ? (p1.cpu - p0.cpu) * 1e6 / (double)n_replies : 0, 3);
        emit_f("server_rss_MB", (double)p1.rss / 1e6, 1);
    }
    emit_i("bad_replies", (long long)n_bad);
    emit_i("protocol_errors", (long long)n_protoerr);
    emit_i("lost_conns", (long long)n_lost);
    int rc = n_bad || n_protoerr || n_lost || nfailed;
    close_all(o_conns);
    return rc;
}
static int run_idle(void) {
    pstat p0 = proc_stat();
    double c0 = self_cpu();
    double ct = connect_all(o_conns);
    double c1 = self_cpu();
    pstat p1 = proc_stat();
    emit_connect(ct, o_conns);
    emit_hist("handshake", &HH);
    emit_f("client_cpu_connect", (c1 - c0) / ct, 3);
    uint64_t t = nowns() + (uint64_t)(o_settle * 1e9);
    while (nowns() < t) poll_once(20);
    pstat p2 = proc_stat();
    uint64_t pings0 = n_pings;
    t = nowns();
    uint64_t te = t + (uint64_t)(o_seconds * 1e9);
    if (o_notify) {
        fprintf(stderr, "@connected\n");
        if (epoll_ctl(ep, EPOLL_CTL_ADD, STDIN_FILENO, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL}))
            die("--notify needs a pipe as stdin: %s", strerror(errno));
    }
    while (nowns() < te && !stdin_ended) poll_once(50);
    if (o_notify) epoll_ctl(ep, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    double hold = (double)(nowns() - t) / 1e9;
    pstat p3 = proc_stat();
    uint32_t mn = UINT32_MAX, mx = 0;
    for (int i = 0; i < o_conns; i++)
        if (conns[i].state == ST_OPEN) {
            if (conns[i].pings < mn) mn = conns[i].pings;
            if (conns[i].pings > mx) mx = conns[i].pings;
        }
    emit_f("hold_s", hold, 2);
    emit_i("pings_in_hold", (long long)(n_pings - pings0));
    emit_i("pings_per_conn_min", mn == UINT32_MAX ? 0 : mn);
    emit_i("pings_per_conn_max", mx);
    emit_i("other_messages", (long long)n_data_other);
    if (o_pid) {
        emit_f("rss_before_MB", (double)p0.rss / 1e6, 2);
        emit_f("rss_connected_MB", (double)p2.rss / 1e6, 2);
        emit_f("rss_after_hold_MB", (double)p3.rss / 1e6, 2);
        emit_f("bytes_per_conn", nopen ? (double)(p2.rss - p0.rss) / nopen : 0, 0);
        emit_f("bytes_per_conn_hold", nopen ? (double)(p3.rss - p0.rss) / nopen : 0, 0);
        emit_f("server_cpu_s_connect", p1.cpu - p0.cpu, 3);
        emit_f("server_us_per_handshake", nopen ? (p1.cpu - p0.cpu) * 1e6 / nopen : 0, 1);
        emit_f("server_cpu_s_hold", p3.cpu - p2.cpu, 3);
        emit_f("server_cpu_pct_hold", (p3.cpu - p2.cpu) / hold * 100, 2);
    }
    emit_i("lost_conns", (long long)n_lost);
    int rc = n_lost || nfailed;
    close_all(o_conns);
    return rc;
}
static int run_fanout(void) {
    pub = &conns[o_conns];
    fmsg = xcalloc((size_t)o_count, sizeof *fmsg);
    fts = xcalloc((size_t)o_count, 8), fleft = xcalloc((size_t)o_count, 8);
    char *at = strstr((char *)payload, "\"seq\":\"0000000000");
    for (int i = 0; i < o_count; i++) {
        fmsg[i] = xcalloc(1, plen + 1);
        memcpy(fmsg[i], payload, plen);
        if (at) {
            char s[11];
            snprintf(s, sizeof s, "%010d", i);
            memcpy(fmsg[i] + (at - (char *)payload) + 7, s, 10);
        }
        fleft[i] = (uint64_t)o_conns;
    }
    double ct = connect_all(o_conns + 1);
    emit_connect(ct, o_conns + 1);
    if (nopen < o_conns + 1) return 1;
    uint64_t t = nowns() + (uint64_t)(o_settle * 1e9);
    while (nowns() < t) poll_once(20);
    pstat p0 = proc_stat();
    double c0 = self_cpu();
    uint64_t t0 = nowns(), last = t0;
    if (o_rate <= 0)
        for (int i = 0; i < o_window && fpublished < (uint64_t)o_count; i++) publish_next();
    while (fdone < (uint64_t)o_count && pub->fd >= 0) {
        uint64_t now = nowns();
        while (o_rate > 0 && fpublished < (uint64_t)o_count && (double)(now - t0) / 1e9 * o_rate >= (double)fpublished) publish_next();
        if (fpublished) last = fts[fpublished - 1];
        if (now > last && (double)(now - last) > o_seconds * 1e9) break;
        poll_once(o_rate > 0 && fpublished < (uint64_t)o_count ? 1 : 20);
    }
    double wall = (double)(nowns() - t0) / 1e9, c1 = self_cpu();
    pstat p1 = proc_stat();
    uint64_t want = (uint64_t)o_conns * (uint64_t)o_count;
    emit_i("subscribers", o_conns);
    emit_i("published", (long long)fpublished);
    emit_i("size", (long long)plen);
    emit_i("window", o_window);
    emit_i("delivered", (long long)fdelivered);
    emit_i("missing", (long long)(want - fdelivered));
    emit_f("elapsed_s", wall, 3);
    emit_f("deliveries_per_s", (double)fdelivered / wall, 0);
    emit_f("broadcasts_per_s", (double)fdone / wall, 1);
    emit_hist("delivery", &H);
    emit_hist("broadcast", &H2);
    emit_f("client_cpu", (c1 - c0) / wall, 3);
    if (o_pid) {
        emit_f("server_cpu", (p1.cpu - p0.cpu) / wall, 3);
        emit_f("server_us_per_delivery", fdelivered ? (p1.cpu - p0.cpu) * 1e6 / (double)fdelivered : 0, 3);
        emit_f("server_rss_MB", (double)p1.rss / 1e6, 1);
    }
    emit_i("bad_messages", (long long)n_bad);
    emit_i("other_messages", (long long)n_data_other);
    emit_i("lost_conns", (long long)n_lost);
    int rc = fdelivered != want || n_bad || n_lost;
    close_all(o_conns + 1);
    return rc;
}
static void churn_end(conn *c) {
    uint8_t b[64];
    ch_end[c->end_kind]++;
    switch (c->end_kind) {
    case END_CLEAN:
        nopen--;
        c->state = ST_CLOSING;
        c->t_end = nowns() + 2000000000ull;
        b[0] = 0x03, b[1] = 0xe8;
        send_frame(c, 8, b, 2);
        return;
    case END_MIDFRAME: {
        size_t n = put_frame(b, 1, payload, plen < 40 ? plen : 40);
        send(c->fd, b, 1 + rnd() % (n - 1), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    }
    default: break;
    }
    if (c->state == ST_OPEN) nopen--;
    else ninflight--;
    c->state = ST_DEAD;
    close_fd(c, c->end_kind == END_RST || c->end_kind == END_MIDHS_RST);
}
static int run_churn(void) {
    pstat p0 = proc_stat();
    double c0 = self_cpu();
    uint64_t t0 = nowns(), te = t0 + (uint64_t)(o_seconds * 1e9), scan = 0;
    static const uint8_t mix[] = {END_RST, END_RST, END_FIN, END_FIN, END_MIDFRAME, END_MIDFRAME, END_MIDHS_FIN, END_MIDHS_RST, END_CLEAN, END_CLEAN, END_SILENT};
    while (nowns() < te) {
        uint64_t now = nowns();
        if (now >= scan) {
            scan = now + 1000000;
            int burst = o_inflight;
            for (int i = 0; i < o_conns; i++) {
                conn *c = &conns[i];
                if ((c->state == ST_FREE || c->state == ST_DEAD) && ninflight < o_inflight && burst-- > 0) {
                    uint8_t k = mix[rnd() % sizeof mix];
                    if (k == END_SILENT && ch_silent >= o_conns / 2) k = END_RST;
                    conn_start(c);
                    c->end_kind = k;
                    if (k == END_SILENT) ch_silent++, ch_end[END_SILENT]++;
                    ch_opened++;
                } else if (c->state == ST_OPEN && c->end_kind != END_SILENT && now >= c->t_end) churn_end(c);
                else if (c->state == ST_HANDSHAKE && (c->end_kind == END_MIDHS_FIN || c->end_kind == END_MIDHS_RST) && now - c->t_start > 2000000)
                    churn_end(c);
                else if (c->state == ST_CLOSING && now >= c->t_end) conn_lost(c, "close timeout");
            }
        }
        poll_once(1);
    }
    double wall = (double)(nowns() - t0) / 1e9, c1 = self_cpu();
    for (int i = 0; i < o_conns; i++) close_fd(&conns[i], true), conns[i].state = ST_DEAD;
    pstat p1 = proc_stat();
    emit_f("seconds", wall, 2);
    emit_i("opened", (long long)ch_opened);
    emit_f("opened_per_s", (double)ch_opened / wall, 0);
    emit_i("handshakes_ok", (long long)HH.n);
    emit_i("handshakes_failed", (long long)ch_fail);
    for (int i = 0; i < END_N; i++) {
        char k[48];
        snprintf(k, sizeof k, "end_%s", END_NAME[i]);
        emit_i(k, (long long)ch_end[i]);
    }
    emit_i("clean_close_answered", (long long)ch_clean_ok);
    emit_i("closed_by_server", (long long)ch_srv_closed);
    emit_i("echo_ok", (long long)ch_echo_ok);
    emit_i("bad_replies", (long long)n_bad);
    emit_hist("handshake", &HH);
    emit_f("client_cpu", (c1 - c0) / wall, 3);
    if (o_pid) {
        emit_f("server_cpu", (p1.cpu - p0.cpu) / wall, 3);
        emit_f("rss_before_MB", (double)p0.rss / 1e6, 2);
        emit_f("rss_after_MB", (double)p1.rss / 1e6, 2);
    }
    /* is it still serving? */
    uint64_t ok0 = HH.n;
    conn *c = &conns[0];
    conn_start(c);
    c->end_kind = END_CLEAN;
    uint64_t t = nowns() + 3000000000ull;
    while (HH.n == ok0 && nowns() < t) poll_once(10);
    emit_i("alive_after", HH.n > ok0);
    close_fd(c, true);
    return HH.n == ok0;
}

/* ------------------------------------------------------------------ main */
enum { OPT_HOST = 1000, OPT_PORT, OPT_PATH, OPT_HEADER, OPT_TOKENS, OPT_CONNS, OPT_CRATE, OPT_INFL, OPT_CTO, OPT_SECS, OPT_PID, OPT_PFILE, OPT_SIZE, OPT_EXPECT, OPT_COUNTONLY, OPT_JSON, OPT_LABEL,
       OPT_SEED, OPT_DEPTH, OPT_WARM, OPT_SETTLE, OPT_HELLO, OPT_SKIP, OPT_RATE, OPT_COUNT, OPT_WINDOW, OPT_PUBPATH, OPT_PRE, OPT_SUF, OPT_LINGER, OPT_SRCB, OPT_SRCN, OPT_DSTN, OPT_NOTIFY };
int main(int argc, char **argv) {
    static const struct option L[] = {
        {"host", 1, 0, OPT_HOST}, {"port", 1, 0, OPT_PORT}, {"path", 1, 0, OPT_PATH}, {"header", 1, 0, OPT_HEADER}, {"tokens-file", 1, 0, OPT_TOKENS},
        {"conns", 1, 0, OPT_CONNS}, {"connect-rate", 1, 0, OPT_CRATE}, {"inflight", 1, 0, OPT_INFL}, {"connect-timeout", 1, 0, OPT_CTO},
        {"seconds", 1, 0, OPT_SECS}, {"pid", 1, 0, OPT_PID}, {"payload-file", 1, 0, OPT_PFILE}, {"size", 1, 0, OPT_SIZE}, {"expect", 1, 0, OPT_EXPECT},
        {"count-only", 0, 0, OPT_COUNTONLY}, {"json", 0, 0, OPT_JSON}, {"label", 1, 0, OPT_LABEL}, {"seed", 1, 0, OPT_SEED}, {"depth", 1, 0, OPT_DEPTH},
        {"warmup", 1, 0, OPT_WARM}, {"settle", 1, 0, OPT_SETTLE}, {"hello", 1, 0, OPT_HELLO}, {"skip", 1, 0, OPT_SKIP}, {"rate", 1, 0, OPT_RATE},
        {"count", 1, 0, OPT_COUNT}, {"window", 1, 0, OPT_WINDOW}, {"pub-path", 1, 0, OPT_PUBPATH}, {"pub-prefix", 1, 0, OPT_PRE}, {"pub-suffix", 1, 0, OPT_SUF},
        {"linger-ms", 1, 0, OPT_LINGER}, {"src-base", 1, 0, OPT_SRCB}, {"src-count", 1, 0, OPT_SRCN}, {"dst-count", 1, 0, OPT_DSTN}, {"notify", 0, 0, OPT_NOTIFY}, {0, 0, 0, 0}};
    const char *pfile = NULL, *tfile = NULL;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    rng_s = (uint64_t)ts.tv_nsec ^ ((uint64_t)getpid() << 32);
    for (int o; (o = getopt_long(argc, argv, "", L, NULL)) != -1;) switch (o) {
        case OPT_HOST: o_host = optarg; break;
        case OPT_PORT: o_port = atoi(optarg); break;
        case OPT_PATH: o_path = optarg; break;
        case OPT_HEADER:
            if (strlen(o_headers) + strlen(optarg) + 3 > sizeof o_headers) die("headers too long");
            strcat(strcat(o_headers, optarg), "\r\n");
            break;
        case OPT_TOKENS: tfile = optarg; break;
        case OPT_CONNS: o_conns = atoi(optarg); break;
        case OPT_CRATE: o_rate_conn = atof(optarg); break;
        case OPT_INFL: o_inflight = atoi(optarg); break;
        case OPT_CTO: o_ctimeout = atof(optarg); break;
        case OPT_SECS: o_seconds = atof(optarg); break;
        case OPT_PID: o_pid = atoi(optarg); break;
        case OPT_PFILE: pfile = optarg; break;
        case OPT_SIZE: o_size = (size_t)atol(optarg); break;
        case OPT_EXPECT:
            if (!strcmp(optarg, "exact")) expect = EX_EXACT;
            else if (!strcmp(optarg, "count")) expect = EX_COUNT;
            else if (!strcmp(optarg, "contains")) expect = EX_CONTAINS;
            else if (!strncmp(optarg, "prefix:", 7)) expect = EX_PREFIX, xprefix = optarg + 7, xprefix_len = strlen(xprefix);
            else die("--expect exact | contains | prefix:STR | count");
            break;
        case OPT_COUNTONLY: expect = EX_COUNT; break;
        case OPT_JSON: o_json = true; break;
        case OPT_LABEL: o_label = optarg; break;
        case OPT_SEED: rng_s = strtoull(optarg, NULL, 0); break;
        case OPT_DEPTH: o_depth = atoi(optarg); break;
        case OPT_WARM: o_warmup = atof(optarg); break;
        case OPT_SETTLE: o_settle = atof(optarg); break;
        case OPT_HELLO: o_hello = optarg; break;
        case OPT_SKIP: o_skip = atoi(optarg); break;
        case OPT_RATE: o_rate = atof(optarg); break;
        case OPT_COUNT: o_count = atoi(optarg); break;
        case OPT_WINDOW: o_window = atoi(optarg); break;
        case OPT_PUBPATH: o_pubpath = optarg; break;
        case OPT_PRE: o_pre = optarg; break;
        case OPT_SUF: o_suf = optarg; break;
        case OPT_LINGER: o_linger = atoi(optarg); break;
        case OPT_SRCB: o_srcbase = optarg; break;
        case OPT_SRCN: o_src = atoi(optarg); break;
        case OPT_DSTN: o_dst = atoi(optarg); break;
        case OPT_NOTIFY: o_notify = true; break;
        default: return 2;
    }
    if (optind != argc - 1) die("usage: wsload echo|idle|fanout|churn [options]   (see the head of wsload.c)");
    const char *m = argv[optind];
    mode = !strcmp(m, "echo") ? M_ECHO : !strcmp(m, "idle") ? M_IDLE : !strcmp(m, "fanout") ? M_FANOUT : !strcmp(m, "churn") ? M_CHURN : (die("no mode %s", m), M_ECHO);
    if (o_conns < 1 || o_depth < 1 || o_src < 1 || o_dst < 1 || o_inflight < 1 || o_count < 1 || o_window < 1) die("counts must be positive");
    if (o_depth > 1024) die("--depth is at most 1024");
    if (ntohl(inet_addr(o_host)) >> 24 != 127) die("--host must be a loopback address (127.0.0.0/8)");
    if (tfile) {
        FILE *f = fopen(tfile, "r");
        char line[4096];
        if (!f) die("%s: %s", tfile, strerror(errno));
        while (fgets(line, sizeof line, f)) {
            line[strcspn(line, "\r\n")] = 0;
            if (!*line) continue;
            tokens = realloc(tokens, (ntokens + 1) * sizeof *tokens);
            tokens[ntokens++] = strdup(line);
        }
        fclose(f);
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit rl = {(rlim_t)o_conns + 256, (rlim_t)o_conns + 256}, cur;
    getrlimit(RLIMIT_NOFILE, &cur);
    if (cur.rlim_cur < rl.rlim_cur) {
        if (cur.rlim_max > rl.rlim_max) rl.rlim_max = cur.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &rl)) fprintf(stderr, "wsload: cannot raise the open-files limit: %s\n", strerror(errno));
    }
    make_payload(pfile);
    if (!xprefix_len) xprefix = "";
    rbuf = xcalloc(1, RBUF);
    conns = xcalloc((size_t)o_conns + 1, sizeof *conns);
    for (int i = 0; i <= o_conns; i++) conns[i].id = (uint32_t)i, conns[i].fd = -1;
    ep = epoll_create1(EPOLL_CLOEXEC);
    emit_s("mode", m);
    if (o_label) emit_s("label", o_label);
    int rc = mode == M_ECHO ? run_echo() : mode == M_IDLE ? run_idle() : mode == M_FANOUT ? run_fanout() : run_churn();
    if (o_json) printf("{%s}\n", outbuf);
    return rc;
}
