"""Small files with mode 0600, replaced atomically."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write the file with mode 0600. A reader sees the old text or the new one, never a part and never a wider mode."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write one indented JSON object that only the owner can read."""
    write_private(path, json.dumps(value, indent=2) + "\n")
