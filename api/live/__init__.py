"""The live path, from a caller's wire format to a stream: bare ASGI and Channels. No Django view, no ORM on entry."""
