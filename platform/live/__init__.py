"""Live requests: admission, provider calls, streams and settlement. Knows no HTTP and no wire format."""
