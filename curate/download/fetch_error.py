"""FetchError says why a URL gave no content, and whether another attempt may succeed."""

from curate.base.wording import escape, one_line

_DETAIL = 200  # characters
REFUSED_BY_LIMITS = ("refused_address", "too_large", "too_many_redirects")  # limits in `network`, which you may change
_MAY_PASS = {"dns", "timeout", "http_408", "http_425", "http_429"}


class FetchError(Exception):
    """A URL gave no content.

    `reason` is in `schema.MISSING_REASONS`; `retry_after` is the pause that the host requested.
    """

    def __init__(self, reason: str, detail: object, retry_after: float | None = None) -> None:
        self.reason, self.detail, self.retry_after = reason, escape(one_line(detail, _DETAIL))[:_DETAIL], retry_after
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)

    def fresh(self) -> "FetchError":
        """Return the error without its traceback, because its frames would keep the downloaded bytes in memory."""
        return FetchError(self.reason, self.detail, self.retry_after)

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may succeed."""
        return self.reason in _MAY_PASS or self.reason.startswith("http_5")
