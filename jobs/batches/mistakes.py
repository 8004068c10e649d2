"""What is wrong with one request of a batch."""

from dataclasses import asdict, dataclass
from typing import Any

#: So many are told; whoever has more will come back anyway.
MAX_ISSUES = 100


@dataclass(frozen=True, slots=True)
class BatchIssue:
    """Something to put right. `param` says where in the request, `line` where in the file, counted from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return it as OpenAI's batches tell it, which is also how it is kept."""
        return asdict(self)
