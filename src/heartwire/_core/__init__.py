"""Everything compiled. Knows no asyncio policy, no logging, no configuration and no msgspec.

`frames` and `wheel` are Sans-I/O pieces usable alone; `engine`, `link`, `connection` and `reactor` move
bytes; `json_reader` and `session` are the hot halves of the dispatcher and of Client.
"""
