"""A token bucket for Python callers. Connections use csrc/bucket.h directly."""

cimport cython
from libc.stdint cimport uint64_t

from heartwire._core.csrc cimport hw_bucket_fits, hw_bucket_take, hw_rate

__all__ = ["TokenBucket"]


@cython.final
cdef class TokenBucket:
    cdef hw_rate _rate
    cdef uint64_t _full_at

    def __cinit__(self, double per_second, uint64_t burst):
        if not per_second > 0 or burst < 1:
            raise ValueError("a bucket needs a rate above 0 and holds at least 1")
        self._rate.unit_ns = 1e9 / per_second
        self._rate.burst = burst

    def take(self, uint64_t units, uint64_t now_ns):
        if not hw_bucket_fits(self._full_at, &self._rate, now_ns, units):
            return False
        hw_bucket_take(&self._full_at, &self._rate, now_ns, units)
        return True
