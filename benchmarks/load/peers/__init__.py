"""The servers that are measured, one small program each; every one is started as a process of its own."""
