"""Multipart forms with a file, encoded by hand."""

from jobs.models import File, FileChunk

BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
LINE = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n'


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    """Return one part of a form; with a filename it is a file."""
    file = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename is not None else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes, end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    return b"".join(parts) + end.encode()


PURPOSE = part("purpose", b"batch")
WHOLE = form(PURPOSE, part("file", LINE, "requests.jsonl"))


def is_empty() -> bool:
    """Say whether neither a file nor a chunk of one is stored."""
    return not File.objects.exists() and not FileChunk.objects.exists()
