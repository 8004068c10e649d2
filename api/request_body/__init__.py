"""Receiving the body of a REST request.

    size_limit          ASGI middleware: ends a body that exceeds the limit of its path
    preauthentication   authenticates the sender of a large body from its headers, before the body is read
    reader              reads the body into a spooled file, under read timeouts and a budget for unverified bodies
    json_parser         one strict JSON object
    multipart           a form with one file

They run in this order; `api.asgi` calls the middle two. The live path (`api.live`) reads its own, small bodies.
"""
