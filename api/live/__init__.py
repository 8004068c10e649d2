"""The live path: Channels consumers between a caller's dialect and a stream. No Django view, no ORM on the way in."""
