"""The smallest WSGI application, and the smallest ASGI application."""


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "6"), ("Content-Type", "text/plain")])
    return [b"hello\n"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"hello\n"})
