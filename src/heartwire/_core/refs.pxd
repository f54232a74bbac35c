# A list of owned references that costs nothing while empty.

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memmove, memset


cdef struct Refs:
    PyObject **items  # owned, each one reference
    size_t count
    size_t capacity


cdef inline int refs_push(Refs *refs, object item) noexcept:
    """Appends. Without memory the item is left out, and -1 returned."""
    cdef size_t capacity
    cdef PyObject **grown
    if refs.count == refs.capacity:
        capacity = refs.capacity * 2 if refs.capacity else 64
        grown = <PyObject **>PyMem_RawRealloc(refs.items, capacity * sizeof(PyObject *))
        if grown == NULL:
            return -1
        refs.items = grown
        refs.capacity = capacity
    Py_INCREF(item)
    refs.items[refs.count] = <PyObject *>item
    refs.count += 1
    return 0


cdef inline void refs_drop(Refs *refs, size_t n) noexcept:
    """Forgets the first n, whose references the caller has given up."""
    refs.count -= n
    if n and refs.count:
        memmove(refs.items, refs.items + n, refs.count * sizeof(PyObject *))


cdef inline void refs_clear(Refs *refs) noexcept:
    cdef size_t i
    for i in range(refs.count):
        Py_DECREF(<object>refs.items[i])
    PyMem_RawFree(refs.items)
    memset(refs, 0, sizeof(Refs))
