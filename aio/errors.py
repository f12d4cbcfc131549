"""The one error of this program: what went wrong and what to do about it."""

from __future__ import annotations


class AioError(Exception):
    """A step failed.

    ``message`` says what; ``log`` holds the last lines of the log that tells why (may be empty);
    ``hint`` says what to try (may be empty).
    """

    def __init__(self, message: str, *, log: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log = log
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.message]
        if self.log:
            parts.append(self.log.rstrip())
        if self.hint:
            parts.append(f"Try: {self.hint}")
        return "\n".join(parts)
