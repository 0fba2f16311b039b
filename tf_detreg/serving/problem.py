"""Answers other than success, whichever protocol carries them."""


class Problem(Exception):
    """An answer other than success.

    Args:
        code: Its HTTP status; gRPC answers with the code that stands for it.
        text: One sentence for the client.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class BadRequest(Problem):
    """A request that cannot be used; the text says why."""

    def __init__(self, text: str) -> None:
        super().__init__(400, text)
