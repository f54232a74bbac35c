"""Writing values as JSON with two encoders: a quick one, and one whose word is final."""

__all__ = ["JsonWriter"]


cdef class JsonWriter:
    """Encoders are injected: the core imports without them.

    Args:
        dumps: the quick one, called as `dumps(value, default, options)`: bytes.
        default: what `dumps` calls for what it does not know.
        options: of `dumps`.
        encode: called as `encode(value)` for what `dumps` refuses by TypeError.
    """

    cdef object dumps
    cdef object default
    cdef object options
    cdef object encode

    def __cinit__(self, dumps, default, options, encode):
        self.dumps = dumps
        self.default = default
        self.options = options
        self.encode = encode

    def write(self, value):
        """One value as bytes. Any thread.

        Raises:
            Whatever `encode` raises.
        """
        try:
            return self.dumps(value, self.default, self.options)
        except TypeError:
            return self.encode(value)
