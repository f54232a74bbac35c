"""Frames without I/O: masking, UTF-8, frame headers, the JSON scan and the state word, one call each.

The functions keep nothing between calls and may be called from any thread. "Bytes-like" is what
supports the buffer protocol and is contiguous; nothing is kept of it after the call.
"""

from typing import Final, Never, Self, final

from typing_extensions import Buffer

__all__ = [
    "JSON_ACTION",
    "JSON_DEEP",
    "JSON_OK",
    "FrameHeader",
    "StateWord",
    "Utf8Validator",
    "apply_mask",
    "build_frame_header",
    "find_json_data",
    "json_container",
    "mask_in_place",
    "parse_frame_header",
    "scan_json",
]

JSON_OK: Final[int]
"""`scan_json`: shallow enough, and no key can be `action`."""

JSON_ACTION: Final[int]
"""`scan_json`: shallow enough, and a key may be `action`."""

JSON_DEEP: Final[int]
"""`scan_json`: nested too deep."""

def apply_mask(data: Buffer, key: bytes, pos: int = 0) -> bytes:
    """Mask a payload, or unmask it: the two are the same (RFC 6455 section 5.3).

    Args:
        data: the bytes, or a piece of them.
        key: the masking key, 4 bytes.
        pos: where in the payload `data` begins, in bytes.

    Returns:
        As many bytes as `data` has: byte i is `data[i] ^ key[(pos + i) % 4]`.

    Raises:
        ValueError: the key is not 4 bytes, or `pos` is negative.
        TypeError: `data` is not bytes-like, or `key` not bytes.
    """

def mask_in_place(data: Buffer, key: bytes, pos: int = 0) -> bool:
    """Mask or unmask a payload where it lies, as `apply_mask` does.

    Returns:
        Whether the result is ASCII, which is known in the same pass.

    Raises:
        ValueError: the key is not 4 bytes, or `pos` is negative.
        TypeError, BufferError: `data` is not bytes-like or cannot be written.
    """

@final
class Utf8Validator:
    """Checks text for UTF-8 piece by piece (RFC 3629), failing at the first impossible byte.

    Used by one thread at a time.
    """

    def __new__(cls) -> Self: ...
    def feed(self, data: Buffer) -> None:
        """Check the next piece; pieces may be cut anywhere, within a character too.

        Once it has raised, it raises on every further call.

        Raises:
            RemoteProtocolError: close code 1007: no text begins with the bytes so far (RFC 6455
                section 8.1).
        """

    @property
    def complete(self) -> bool:
        """Whether the bytes so far end with a whole character."""

@final
class FrameHeader:
    """A frame header as it was on the wire (RFC 6455 section 5.2). Made by `parse_frame_header` only."""

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def fin(self) -> bool:
        """Whether this is the last frame of its message."""

    @property
    def rsv(self) -> int:
        """The reserved bits: RSV1 is 4, RSV2 is 2, RSV3 is 1."""

    @property
    def opcode(self) -> int:
        """0 to 15, not judged."""

    @property
    def masked(self) -> bool:
        """Whether the payload is masked."""

    @property
    def key(self) -> bytes | None:
        """The masking key, 4 bytes; None if the payload is not masked."""

    @property
    def length(self) -> int:
        """Length of the payload in bytes."""

    @property
    def size(self) -> int:
        """Length of the header itself in bytes, 2 to 14: where the payload begins."""

def parse_frame_header(data: Buffer) -> FrameHeader | None:
    """Read the frame header that `data` begins with (RFC 6455 section 5.2).

    Judges the length's form alone; opcodes, reserved bits and control-frame rules are the caller's.

    Returns:
        The header, or None if more bytes are needed.

    Raises:
        RemoteProtocolError: close code 1002: the length is not in its shortest form, or has its
            highest bit set.
    """

def build_frame_header(opcode: int, length: int, fin: bool = True, rsv: int = 0) -> bytes:
    """Write the header of an unmasked frame, which is what a server sends (RFC 6455 section 5.2).

    Args:
        opcode: 0 to 15.
        length: bytes of payload that will follow, less than 2**63.
        fin: whether it is the last frame of its message.
        rsv: the reserved bits: RSV1 is 4, RSV2 is 2, RSV3 is 1.

    Returns:
        2, 4 or 10 bytes.

    Raises:
        ValueError: a value is out of its range.
    """

def scan_json(data: Buffer, max_depth: int = 128) -> int:
    """Look over a JSON text before it is decoded: is it too deep, and may it hold an `action`?

    The text need not be valid. Brackets inside strings do not count. A key written with escapes is
    never missed, since any backslash makes the answer `JSON_ACTION`.

    Args:
        data: the text, UTF-8.
        max_depth: how many arrays and objects may be inside each other, 0 to 2**32 - 1.

    Returns:
        `JSON_OK`, `JSON_ACTION` (which may be wrong; `JSON_OK` is not) or `JSON_DEEP`.

    Raises:
        ValueError: `max_depth` is out of its range.
    """

def json_container(data: Buffer, max_depth: int = 64) -> int:
    """Measure the JSON object or array that a text begins with, without decoding it.

    Args:
        data: the text, UTF-8.
        max_depth: how many arrays and objects may be inside each other; at most 64 count.

    Returns:
        Its length in bytes. 0 if it is not JSON, or not written as JSON.stringify does (without space, `\\u`
        and exponents), or the processor has no AVX2: a decoder knows then.
    """

def find_json_data(data: Buffer, max_depth: int = 128) -> tuple[int, int] | None:
    """Find the object or array that is the member `data` of a JSON object, behind a member `action`.

    Args:
        data: the text, UTF-8. What surrounds the value need not be valid.
        max_depth: of the whole text.

    Returns:
        (begin, end) in bytes: another JSON array or object may stand there instead. None if a decoder has to
        look (see `json_container`), or more than 512 bytes stand before it.
    """

@final
class StateWord:
    """The state word of a connection by itself, for tests: phase, flags and generation in 64 bits.

    Bits 0-1 are the phase, 2-31 flags, 32-63 the generation. Any number of threads may use it, and
    none waits for another: each call is one atomic step, taken without the GIL.
    """

    def __new__(cls, generation: int = 0) -> Self: ...
    def advance(self, to: int) -> bool:
        """Move the phase forward to `to`; True for the one caller that did it."""

    def step(self, origin: int, to: int) -> bool:
        """Move the phase to `to` from exactly `origin`; True for the one caller that did it.

        Raises:
            ValueError: `to` is not after `origin`, or one is no phase.
        """

    def set(self, flag: int) -> bool:
        """Set a flag; True for the one caller that found it clear."""

    def clear(self, flag: int) -> bool:
        """Clear a flag; True for the one caller that found it set."""

    @staticmethod
    def race(words: list[StateWord], step: str, value: int, racer: int, racers: int) -> int:
        """Take one step on each word in turn, at the same instant as the other racers.

        At each word the racers, one a thread, wait for each other: racer i sets bit 24 + i, which
        stays set.

        Args:
            words: the same for all racers.
            step: `advance`, `set` or `clear`; racers may differ in it.
            value: the phase to advance to, or the flag.
            racer: which one this is, from 0.
            racers: how many there are, at most 8.

        Returns:
            How many of the steps were this racer's to win.
        """

    @property
    def phase(self) -> int:
        """0 connecting, 1 open, 2 closing, 3 closed."""

    @property
    def generation(self) -> int:
        """The upper 32 bits."""

    def load(self) -> int:
        """The whole word."""
