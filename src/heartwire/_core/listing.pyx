"""Pages of a long dict whose keys grow: found by bisection, so that a page costs the same anywhere in it."""

from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject


cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_Compare(object left, object right) except? -1


cdef inline bint is_later(object key, object after) except -1:
    """Is a key of a later client? Ids end in a counter in hexadecimal: of two, the longer is later."""
    cdef Py_ssize_t difference = PyUnicode_GET_LENGTH(key) - PyUnicode_GET_LENGTH(after)
    return difference > 0 if difference else PyUnicode_Compare(key, after) > 0


cdef inline bint later_from(dict items, Py_ssize_t position, object after) except -1:
    """Is the first key at or behind this position a later one, or missing?"""
    cdef PyObject *key
    return not PyDict_Next(items, &position, &key, NULL) or is_later(<object>key, after)


def page_after(dict items not None, str after, Py_ssize_t limit):
    """The values behind a key, whether it is still there or not.

    A dict keeps its entries in an array, in the order of insertion; `PyDict_Next` walks that array from
    any position and skips what was deleted. The keys came in their own order: the array can be bisected.

    Args:
        items: str -> anything; keys in ascending order, a longer one after a shorter one.
        after: the page begins behind it; None: at the start.
        limit: the most values.
    Returns:
        (values, whether more follow).
    """
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = 1
    cdef Py_ssize_t middle
    cdef PyObject *value
    cdef list page = []
    if after is None:
        high = 0
    else:
        while not later_from(items, high, after):
            low = high
            high *= 2
        while low < high:
            middle = (low + high) // 2
            if later_from(items, middle, after):
                high = middle
            else:
                low = middle + 1
    while len(page) < limit:
        if not PyDict_Next(items, &high, NULL, &value):
            return page, False
        page.append(<object>value)
    return page, PyDict_Next(items, &high, NULL, NULL) != 0
