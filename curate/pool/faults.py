"""What reading an input raises where the input itself is at fault."""

from curate.errors import CurateError


class InputFault(CurateError):
    """A part, or what is left of it, cannot be used; `reason` is one of `schema.FILE_REASONS` or `DAMAGE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class EmbeddingFault(ValueError):
    """The embeddings that go with a file are missing, damaged or do not fit it; `transient` where a later read may succeed."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
