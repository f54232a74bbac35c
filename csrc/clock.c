#define _GNU_SOURCE
#include "clock.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

uint64_t hw_clock_us(void) {
    LARGE_INTEGER ticks, a_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&a_second);
    uint64_t now = (uint64_t)ticks.QuadPart, rate = (uint64_t)a_second.QuadPart;
    return now / rate * 1000000 + now % rate * 1000000 / rate;
}
#else
#include <time.h>

uint64_t hw_clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}
#endif
