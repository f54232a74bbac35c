/* The clock of deadlines: it never goes back, and does not care what time it is. */
#ifndef HW_CLOCK_H
#define HW_CLOCK_H

#include <stdint.h>

/* Microseconds since some moment before the process began. */
uint64_t hw_clock_us(void);

#endif
