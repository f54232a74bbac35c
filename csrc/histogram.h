/* How often a value was at most a bound, for bounds that are fixed: a count for each, not cumulated, and one
 * more for what is above them all. Zeroed memory is an empty one. */
#ifndef HW_HISTOGRAM_H
#define HW_HISTOGRAM_H

#include <stdint.h>

enum { HW_HISTOGRAM_BOUNDS = 13 };

typedef struct {
    uint64_t counts[HW_HISTOGRAM_BOUNDS + 1];
    uint64_t sum;
} hw_histogram;

/* Microseconds: 1 ms to 10 s. */
static const uint64_t HW_TIME_BOUNDS_US[HW_HISTOGRAM_BOUNDS] = {
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
/* How many of something. */
static const uint64_t HW_COUNT_BOUNDS[HW_HISTOGRAM_BOUNDS] = {
    1, 2, 5, 10, 25, 50, 100, 250, 1000, 2500, 10000, 25000, 100000};

static inline void hw_observe(hw_histogram *histogram, const uint64_t *bounds, uint64_t value) {
    int i = 0;
    while (i < HW_HISTOGRAM_BOUNDS && value > bounds[i]) i++;
    histogram->counts[i]++;
    histogram->sum += value;
}

#endif
