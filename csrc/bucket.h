/* A token bucket in one number: the instant at which it will be full again (GCRA, ITU-T I.371).
 *
 * `rate` says how fast it fills and how much it holds; what is shared by all connections lives there, and a
 * connection keeps 8 bytes. A take of more than the bucket holds needs a full one and leaves it in debt, so
 * that a limit below the size of one message slows a client down instead of locking it out. */
#ifndef HW_BUCKET_H
#define HW_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double unit_ns; /* nanoseconds in which one unit flows in; 0: no limit */
    uint64_t burst; /* units it holds; at least 1 */
} hw_rate;

/* May so many units be taken at `now_ns`? `full_at` is the bucket, 0 at the beginning. */
static inline bool hw_bucket_fits(uint64_t full_at, const hw_rate *rate, uint64_t now_ns, uint64_t units) {
    if (rate->unit_ns == 0) return true;
    uint64_t missing = full_at > now_ns ? full_at - now_ns : 0;
    uint64_t needed = units < rate->burst ? units : rate->burst;
    uint64_t room = (uint64_t)((double)rate->burst * rate->unit_ns);
    return missing + (uint64_t)((double)needed * rate->unit_ns) <= room;
}

/* Takes them, whether or not they fit. */
static inline void hw_bucket_take(uint64_t *full_at, const hw_rate *rate, uint64_t now_ns, uint64_t units) {
    if (rate->unit_ns == 0) return;
    *full_at = (*full_at > now_ns ? *full_at : now_ns) + (uint64_t)((double)units * rate->unit_ns);
}

#endif
