"""The simulator's token rule, simple enough that a test can compute it by hand.

a text           its UTF-8 bytes / 4, rounded up
an image         765
a file or sound  100
a tool           its name + its description + its schema as compact JSON, each counted as a text
a tool call      its name + its arguments, each counted as a text
a prompt         3, and for every message (the system prompt is one) 3 + its content
an answer        its text + its tool calls + its reasoning
"""

IMAGE_TOKENS = 765
FILE_TOKENS = 100
MESSAGE_TOKENS = 3
PROMPT_TOKENS = 3

BYTES_PER_TOKEN = 4


def tokens_of(text: str) -> int:
    return tokens_of_bytes(len(text.encode()))


def tokens_of_bytes(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of `text` that costs at most `tokens`, whole characters only."""
    # A character is at most four bytes, so what the cut leaves out never frees a whole token.
    return text.encode()[: tokens * BYTES_PER_TOKEN].decode(errors="ignore")
