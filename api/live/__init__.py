"""The live path: between a caller's dialect and a stream, bare ASGI and Channels. No Django view, no ORM on the way in."""
