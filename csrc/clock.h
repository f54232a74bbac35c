/* Two clocks: that of deadlines, which never goes back and does not care what time it is, and the one on the
 * wall. */
#ifndef HW_CLOCK_H
#define HW_CLOCK_H

#include <stdint.h>

/* Microseconds since some moment before the process began. */
uint64_t hw_clock_us(void);

/* Microseconds since 1970-01-01 in UTC, as the system's clock has it. */
uint64_t hw_unix_us(void);

#endif
