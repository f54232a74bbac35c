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

uint64_t hw_unix_us(void) {
    const uint64_t from_1601_to_1970 = UINT64_C(116444736000000000); /* in units of 100 ns */
    FILETIME now;
    GetSystemTimePreciseAsFileTime(&now);
    return (((uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime) - from_1601_to_1970) / 10;
}
#else
#include <time.h>

static uint64_t read_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t hw_clock_us(void) { return read_us(CLOCK_MONOTONIC); }

uint64_t hw_unix_us(void) { return read_us(CLOCK_REALTIME); }
#endif
