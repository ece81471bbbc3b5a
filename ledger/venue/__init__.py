"""The venue's words, pure: bytes become facts, questions become requests. No I/O, no clock."""
