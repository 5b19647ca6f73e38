"""The smallest WSGI application."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "6"), ("Content-Type", "text/plain")])
    return [b"hello\n"]
