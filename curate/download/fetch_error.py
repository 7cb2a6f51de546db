"""Why a URL gave nothing: FetchError, and which of its reasons may pass, or are of limits that change."""

from curate.base.wording import escape, one_line

_DETAIL = 200  # characters
REFUSED_BY_LIMITS = ("refused_address", "too_large", "too_many_redirects")  # of `network`, which may change
_MAY_PASS = {"dns", "timeout", "http_408", "http_425", "http_429"}


class FetchError(Exception):
    """A URL gave nothing: `reason` is of `schema.MISSING_REASONS`, `retry_after` the pause that the server asks for."""

    def __init__(self, reason: str, detail: object, retry_after: float | None = None) -> None:
        self.reason, self.detail, self.retry_after = reason, escape(one_line(detail, _DETAIL))[:_DETAIL], retry_after
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)

    def fresh(self) -> "FetchError":
        """Return the fault alone, without the frames and the bytes in them that its traceback would keep in memory."""
        return FetchError(self.reason, self.detail, self.retry_after)

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may go better."""
        return self.reason in _MAY_PASS or self.reason.startswith("http_5")
