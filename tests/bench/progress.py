"""Progress messages of a benchmark."""

import sys


def tell(line: str) -> None:
    """Say on stderr what is being measured; stdout is for the table."""
    print(f"  {line} …", file=sys.stderr, flush=True)
