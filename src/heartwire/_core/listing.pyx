"""Pages of long lists of clients, by their ids, which grow, and what is said of the clients on them.

Where the clients stand in the order of their ids, a page is found by bisection and costs the same anywhere;
where they do not, the page is picked in one walk. A page is made between two messages: each microsecond of a
client on it is one that everybody waits.
"""

from cpython.dict cimport PyDict_Contains, PyDict_Next
from cpython.object cimport PyObject
from libc.math cimport rint
from libc.stdint cimport int64_t, uint32_t

from heartwire._core.connection cimport Connection
from heartwire._core.session cimport Session

__all__ = ["describe", "instant", "page_after", "page_among", "pick_after"]


cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_Compare(object left, object right) except? -1
    object PyUnicode_DecodeASCII(const char *text, Py_ssize_t size, const char *errors)


cdef inline bint is_later(object key, object after) except -1:
    """Is a key of a later client? Ids end in a counter in hexadecimal: of two, the longer is later."""
    cdef Py_ssize_t difference = PyUnicode_GET_LENGTH(key) - PyUnicode_GET_LENGTH(after)
    return difference > 0 if difference else PyUnicode_Compare(key, after) > 0


cdef inline bint later_from(dict items, Py_ssize_t position, object after) except -1:
    """Is the first key at or behind this position a later one, or missing?"""
    cdef PyObject *key
    return not PyDict_Next(items, &position, &key, NULL) or is_later(<object>key, after)


cdef Py_ssize_t begin_after(dict items, object after) except -1:
    """A position from which the first key is the first later one, found by bisection; None: the start."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = 1
    cdef Py_ssize_t middle
    if after is None:
        return 0
    while not later_from(items, high, after):
        low = high
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if later_from(items, middle, after):
            high = middle
        else:
            low = middle + 1
    return high


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
    cdef Py_ssize_t position = begin_after(items, after)
    cdef PyObject *value
    cdef list page = []
    while len(page) < limit:
        if not PyDict_Next(items, &position, NULL, &value):
            return page, False
        page.append(<object>value)
    return page, PyDict_Next(items, &position, NULL, NULL) != 0


def page_among(dict clients not None, dict members not None, str after, Py_ssize_t limit):
    """As `page_after`, for some of the clients, which stand in any order themselves.

    Walks over all clients from the cursor on, which finds the members of a large channel at once, but over no
    more than there are members: then it is shorter to pick them out.

    Args:
        clients: all of them, as for `page_after`.
        members: some of their values -> anything.
        after, limit: as there.
    Returns:
        (clients in the order of their ids, whether more follow).
    """
    cdef Py_ssize_t position = begin_after(clients, after)
    cdef Py_ssize_t _step
    cdef PyObject *value
    cdef list page = []
    for _step in range(len(members) + 1):
        if not PyDict_Next(clients, &position, NULL, &value):
            return page, False
        if PyDict_Contains(members, <object>value):
            if len(page) == limit:
                return page, True
            page.append(<object>value)
    return pick_after(members, after, limit)


def pick_after(dict members not None, str after, Py_ssize_t limit):
    """As `page_after`, for clients in any order: 100,000 take a few milliseconds.

    Args:
        members: Session -> anything.
        after, limit: as there.
    Returns:
        (clients in the order of their ids, whether more follow).
    """
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t low
    cdef Py_ssize_t high
    cdef Py_ssize_t middle
    cdef PyObject *key
    cdef object member_id
    cdef object last = None  # the latest id of a full page
    cdef bint more = False
    cdef list page = []
    while PyDict_Next(members, &position, &key, NULL):
        member_id = (<Session>key).id
        if after is not None and not is_later(member_id, after):
            continue
        if last is not None:
            more = True
            if is_later(member_id, last):
                continue
            page.pop()
        low = 0
        high = len(page)
        if high and is_later(member_id, (<Session>page[high - 1]).id):
            low = high  # most come in order
        while low < high:
            middle = (low + high) // 2
            if is_later(member_id, (<Session>page[middle]).id):
                low = middle + 1
            else:
                high = middle
        page.insert(low, <object>key)
        if len(page) == limit:
            last = (<Session>page[limit - 1]).id
    return page, more


def describe(list clients not None, make):
    """What is said of clients in lists.

    Args:
        clients: Sessions.
        make: called for each with id, user id, username (None while anonymous), the sorted names of its
            channels, `host:port` or `unix`, user agent, the instants of its upgrade and of the last byte
            received (RFC 3339), round trip in milliseconds or None, bytes queued.
    Returns:
        What `make` made, in order.
    """
    cdef Session client
    cdef Connection conn
    cdef object who
    cdef list made = []
    for client in clients:
        conn = client.connection
        who = client.credentials
        made.append(make(
            client.id,
            None if who is None else who.user_id,
            None if who is None else who.username,
            sorted([channel.name for channel in client.memberships]) if client.memberships else [],
            address(conn),
            client.user_agent,
            instant(conn.opened_at),
            instant(conn.last_seen),
            conn.rtt_ms,
            conn.queued_bytes,
        ))
    return made


cdef object address(Connection conn):
    """`host:port`, an IPv6 host in brackets; the host alone where no port is known, or `unix`."""
    cdef char text[24]
    cdef char *p = text
    cdef int i
    if conn.peer_family == 0:
        return "unix"
    if conn.peer_family == 6:
        host, port = conn.remote_address
        return f"[{host}]:{port}" if port else host
    for i in range(4):
        if i:
            p[0] = c"."
            p += 1
        p = write_number(p, conn.peer_address[i])
    if conn.peer_port:
        p[0] = c":"
        p = write_number(p + 1, conn.peer_port)
    return PyUnicode_DecodeASCII(text, p - text, NULL)


cdef char *write_number(char *p, uint32_t number) noexcept:
    """Writes it in decimal without leading zeros; returns the place behind it."""
    cdef uint32_t power = 1
    while number // power > 9:
        power *= 10
    while power:
        p[0] = c"0" + number // power % 10
        p += 1
        power //= 10
    return p


cdef void write_digits(char *p, uint32_t number, int count) noexcept:
    """Writes the last digits of it, as many as asked for."""
    while count:
        count -= 1
        p[count] = c"0" + number % 10
        number //= 10


cpdef str instant(double seconds):
    """A Unix time, not negative, as RFC 3339 in UTC with milliseconds: what `messages.rfc3339` says, sooner.

    Source: https://howardhinnant.github.io/date_algorithms.html (civil_from_days)
    """
    cdef int64_t ms = <int64_t>rint(seconds * 1000)
    cdef uint32_t day = <uint32_t>(ms // 86_400_000) + 719_468  # from 1 March of the year 0
    cdef uint32_t of_day = <uint32_t>(ms % 86_400_000)
    cdef uint32_t era = day // 146_097
    cdef uint32_t of_era = day - era * 146_097
    cdef uint32_t year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    cdef uint32_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef uint32_t march = (5 * of_year + 2) // 153  # months since March
    cdef char text[25]
    text = "0000-00-00T00:00:00.000Z"
    write_digits(text, year + era * 400 + (1 if march > 9 else 0), 4)
    write_digits(text + 5, march - 9 if march > 9 else march + 3, 2)
    write_digits(text + 8, of_year - (153 * march + 2) // 5 + 1, 2)
    write_digits(text + 11, of_day // 3_600_000, 2)
    write_digits(text + 14, of_day // 60_000 % 60, 2)
    write_digits(text + 17, of_day // 1000 % 60, 2)
    write_digits(text + 20, of_day % 1000, 3)
    return PyUnicode_DecodeASCII(text, 24, NULL)
