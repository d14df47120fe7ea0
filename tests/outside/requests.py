"""HTTP by a client that we did not write, Python's http.client, against a running server.

    requests.py SCENARIO URL RUN_DIR

Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded.
"""

import http.client
import sys
import urllib.parse

DEADLINE = 15


def kept(connection):
    """Many requests of all kinds on one connection."""
    sockets = set()
    for method, path, body, status in [
        ("GET", "/healthz", None, 200),
        ("HEAD", "/healthz", None, 200),
        ("GET", "/", None, 200),
        ("HEAD", "/nope", None, 404),
        ("GET", "/nope", None, 404),
        ("POST", "/healthz", b"x" * 60_000, 405),
        ("PUT", "/nope", b"", 404),
        ("GET", "/ws", None, 426),
        ("HEAD", "/ws", None, 426),
        ("OPTIONS", "/readyz", None, 405),
        ("GET", "/api/nope?a=b%20c", None, 401),
        ("GET", "/readyz", None, 200),
    ] * 3:
        connection.request(method, path, body)
        sockets.add(connection.sock)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == status, (method, path, answer.status, said)
        assert answer.version == 11 and not answer.will_close, (method, path)
        assert bool(said) == (method != "HEAD"), (method, path, said)
        if status == 405:
            assert answer.headers["Allow"] == "GET, HEAD", answer.headers
        if status == 426:
            assert answer.headers["Upgrade"] == "websocket", answer.headers
            assert "upgrade" in answer.headers["Connection"].lower(), answer.headers
    assert len(sockets) == 1, "one connection for all of them"


def refused(connection):
    """What is refused comes as an answer that is whole, and says that it is the last one."""
    for method, path, body, headers, status in [
        ("POST", "/healthz", iter([b"a", b"b"]), {}, 411),
        ("POST", "/healthz", b"x" * 200_000, {}, 413),
        ("GET", "/" + "x" * 9_000, None, {}, 414),
        ("GET", "/", None, {"X": "x" * 9_000}, 431),
        ("GET", "/", None, {f"X-{n}": "y" for n in range(80)}, 431),
        ("GET", "/", None, {"Host": "a b"}, 400),
    ]:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == status, (method, path, answer.status, said)
        assert answer.will_close and len(said) == int(answer.headers["Content-Length"]), answer.headers
        connection.close()


SCENARIOS = {"kept": kept, "refused": refused}

if __name__ == "__main__":
    place = urllib.parse.urlsplit(sys.argv[2])
    SCENARIOS[sys.argv[1]](http.client.HTTPConnection(place.hostname, place.port, timeout=DEADLINE))
