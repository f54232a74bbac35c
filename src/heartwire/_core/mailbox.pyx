"""Calls that other threads leave for the loop's, in the order of each; one wake-up for a burst."""

from collections import deque

__all__ = ["Mailbox"]


cdef class Mailbox:
    """Any thread leaves; the engine's thread looks, and takes `calls` from the left."""

    def __cinit__(self):
        self.calls = deque()

    cdef int leave(self, tuple call) except -1:
        """Returns what is to be done: a MAIL_ word. Closed: the call was not taken."""
        cdef int answer = MAIL_CLOSED
        take(&self.lock)
        try:
            if not self.closed:
                self.calls.append(call)
                answer = MAIL_LEFT if self.told else MAIL_FIRST
                self.told = True
        finally:
            give(&self.lock)
        return answer

    cdef Py_ssize_t look(self) noexcept:
        """How many calls are there. What is left from now on wakes the owner again."""
        cdef Py_ssize_t count
        take(&self.lock)
        count = len(self.calls)
        self.told = False
        give(&self.lock)
        return count

    cdef bint again(self) noexcept:
        """Must the owner look again, with nobody to wake it?"""
        cdef bint more
        take(&self.lock)
        more = len(self.calls) > 0 and not self.told and not self.closed
        if more:
            self.told = True
        give(&self.lock)
        return more

    cdef void close(self) noexcept:
        """Takes no more calls. Those it has stay."""
        take(&self.lock)
        self.closed = True
        give(&self.lock)
