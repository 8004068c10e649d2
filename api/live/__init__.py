"""The live path, from a caller's dialect to a stream: bare ASGI and Channels. No Django view, no ORM on the way in."""
