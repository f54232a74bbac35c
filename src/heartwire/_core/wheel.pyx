"""A timing wheel for Python callers. The engine uses csrc/wheel.h directly."""

cimport cython
from libc.stdint cimport UINT64_MAX, uint64_t

from heartwire._core.csrc cimport (
    hw_wheel,
    hw_wheel_add,
    hw_wheel_advance,
    hw_wheel_check,
    hw_wheel_entry,
    hw_wheel_free,
    hw_wheel_init,
    hw_wheel_linked,
    hw_wheel_next,
    hw_wheel_pop,
    hw_wheel_remove,
)

__all__ = ["TimerHandle", "TimingWheel"]

# One entry and its handle, so that what the C wheel returns leads back to the object.
cdef struct handle_entry:
    hw_wheel_entry link  # first: a pointer to it is a pointer to the whole
    void *handle         # borrowed: the TimerHandle this is part of


@cython.final
cdef class TimerHandle:
    cdef handle_entry _entry
    cdef hw_wheel *_wheel  # borrowed: valid while the entry is linked (a wheel that dies unlinks all)
    cdef public object value

    def __cinit__(self, value=None):
        self._entry.link.prev = NULL
        self._entry.link.next = NULL
        self._entry.link.deadline = 0
        self._entry.handle = <void *>self
        self._wheel = NULL
        self.value = value

    def __dealloc__(self):
        # The wheel keeps its handles alive, unless the collector takes both apart in its own order.
        if hw_wheel_linked(&self._entry.link):
            hw_wheel_remove(self._wheel, &self._entry.link)

    @property
    def deadline(self):
        return self._entry.link.deadline

    @property
    def linked(self):
        return hw_wheel_linked(&self._entry.link) != 0


@cython.final
cdef class TimingWheel:
    cdef hw_wheel _wheel  # owned: freed in __dealloc__; must not move, its ring heads point to themselves
    cdef set _handles     # keeps alive what the C wheel points to

    def __cinit__(self, size_t slot_count=1024, uint64_t now=0):
        self._wheel.slots = NULL
        self._handles = set()
        if slot_count < 64 or slot_count & (slot_count - 1):
            raise ValueError(f"slot_count is a power of two of at least 64, not {slot_count}")
        if hw_wheel_init(&self._wheel, slot_count, now) < 0:
            raise MemoryError()

    def __dealloc__(self):
        hw_wheel_free(&self._wheel)

    cdef int _own(self, TimerHandle handle) except -1:
        if hw_wheel_linked(&handle._entry.link) and handle._wheel != &self._wheel:
            raise ValueError("the handle is in another wheel: remove it there first")
        return 0

    def add(self, TimerHandle handle not None, uint64_t deadline):
        self._own(handle)
        self._handles.add(handle)
        handle._wheel = &self._wheel
        hw_wheel_add(&self._wheel, &handle._entry.link, deadline)

    def remove(self, TimerHandle handle not None):
        self._own(handle)
        hw_wheel_remove(&self._wheel, &handle._entry.link)
        self._handles.discard(handle)

    def advance(self, uint64_t now):
        cdef list expired = []
        cdef hw_wheel_entry *entry
        cdef TimerHandle handle
        hw_wheel_advance(&self._wheel, now)
        entry = hw_wheel_pop(&self._wheel)
        while entry != NULL:
            handle = <TimerHandle>(<handle_entry *>entry).handle
            expired.append(handle)
            self._handles.discard(handle)
            entry = hw_wheel_pop(&self._wheel)
        return expired

    def next_deadline(self):
        cdef uint64_t tick = hw_wheel_next(&self._wheel)
        return None if tick == UINT64_MAX and self._wheel.count == 0 else tick

    def check(self):
        cdef int broken = hw_wheel_check(&self._wheel)
        if broken < 0:
            raise AssertionError(f"timing wheel: invariant {-broken} of hw_wheel_check is broken")
        if <size_t>len(self._handles) != self._wheel.count:
            raise AssertionError("timing wheel: the handles kept alive are not those that are linked")

    def __len__(self):
        return <Py_ssize_t>self._wheel.count

    @property
    def slot_count(self):
        return self._wheel.mask + 1

    @property
    def now(self):
        return self._wheel.now
