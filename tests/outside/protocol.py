"""The rows of protocol.json, played by Python's websockets and jsonrpcclient.

    protocol.py SERVER URL RUN_DIR

Plays all rows for this server. Exits with 0 if everything came as promised; else names the row.
The same as protocol.mjs.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import signal
import sys
import time
import urllib.parse
import urllib.request

from jsonrpcclient import Error, Ok, parse, request_json
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

DEADLINE = 15
SERVER, URL, RUN_DIR = sys.argv[1:]


def jwt(claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = dict(claims)
    if "exp_in" in claims:
        claims["exp"] = int(time.time()) + claims.pop("exp_in")
    with open(os.path.join(RUN_DIR, "..", "token.key"), "rb") as key:
        secret = key.read().rstrip(b"\n")
    header = {"alg": "HS256", "typ": "JWT", "kid": "h"}
    message = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (message + b"." + part(hmac.digest(secret, message, hashlib.sha256))).decode()


def expand(value):
    """What a row stands for."""
    if isinstance(value, list):
        return [expand(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$repeat" in value:
        text, times = value["$repeat"]
        return text * times
    if "$list" in value:
        item, times = value["$list"]
        return [expand(item)] * times
    if "$jwt" in value:
        return jwt(value["$jwt"])
    return {name: expand(member) for name, member in value.items()}


KINDS = {"$string": str, "$number": int, "$bool": bool, "$list": list}


def fits(value, pattern):
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and fits(value[name], member) for name, member in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and len(value) == len(pattern) and all(map(fits, value, pattern))
    if isinstance(pattern, str) and pattern in KINDS:
        return isinstance(value, KINDS[pattern])
    return value == pattern and type(value) is type(pattern)


class Client:
    def __init__(self, socket):
        self.socket, self.kept, self.last_id = socket, [], 0

    @classmethod
    async def open(cls):
        client = cls(await connect(URL, open_timeout=DEADLINE, ping_interval=None, max_size=2**24))
        assert fits(await client.hear("hello"), {"session": "$string", "reconnect": {"base_ms": "$number"}})
        return client

    async def read(self):
        async with asyncio.timeout(DEADLINE):
            said = json.loads(await self.socket.recv())
        assert said["jsonrpc"] == "2.0", said
        return said

    async def hear(self, method):
        while True:
            for place, kept in enumerate(self.kept):
                if kept["method"] == method:
                    return self.kept.pop(place)["params"]
            self.kept.append(await self.read())

    async def answer(self):
        while "method" in (said := await self.read()):
            self.kept.append(said)
        return parse(said)

    async def ask(self, method, row):
        self.last_id += 1
        params = expand(row.get("params"))
        text = request_json(method, params=params, id=self.last_id)
        if "params" in row and not params:
            # The library leaves out what is empty.
            text = json.dumps({**json.loads(text), "params": params})
        await self.socket.send(text)
        answer = await self.answer()
        assert answer.id == self.last_id, answer
        return answer

    async def call(self, method, row):
        answer = await self.ask(method, row)
        assert isinstance(answer, Ok) and fits(answer.result, expand(row.get("result", {}))), answer

    async def fail(self, method, row):
        refused(await self.ask(method, row), row["error"])

    async def login(self, user, device):
        await self.call("login", {"params": {"user": user, "device": {"id": device}}})

    async def closed(self, code, reason):
        try:
            while True:
                self.kept.append(await self.read())
        except ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code == code, closed
            assert reason is None or closed.rcvd.reason == reason, closed
        bye = await self.hear("bye")
        assert bye["code"] == code and bye["reconnect"] == returns(code), bye

    async def leave(self):
        await self.socket.close()
        assert self.socket.close_code == 1000, self.socket.close_code


def returns(code):
    return code in (1001, 1012, 1013) or 4000 <= code < 4500


def refused(answer, error):
    assert isinstance(answer, Error), answer
    assert [answer.code, answer.data["reason"]] == error, answer


async def ready(block):
    client = await Client.open()
    if block["state"] == "in" and SERVER == "token":
        token = {"$jwt": {"sub": "ann", "exp_in": 60}}
        await client.call("login", {"params": {"token": token, "device": {"id": "p1"}}})
    elif block["state"] == "in":
        await client.login("ann", "p1")
    return client


async def play_method(block):
    client = await ready(block)
    for row in block.get("bad", []):
        # Tokens that are refused are counted: such a row has a connection of its own, which takes the
        # place of the other session of this device.
        if row.get("alone") or client.socket.close_code is not None:
            client = await ready(block)
        await named(row, client.fail(block["method"], row))
    for row in block.get("good", []):
        new = block["state"] == "out" and block["method"] == "login"
        if new or client.socket.close_code is not None:
            client = await ready(block)
        await named(row, client.call(block["method"], row))
    await client.leave()


async def named(row, deed):
    try:
        await deed
    except Exception:
        print(f"row: {json.dumps(row, ensure_ascii=False)[:500]}", file=sys.stderr)
        raise


async def play_texts(rows):
    client = await Client.open()
    for row in rows:
        await client.socket.send(row["text"])
        answer = await client.answer()
        assert answer.id == row["id"], (row, answer)
        refused(answer, row["error"])
    await client.leave()


def api(path, body):
    with open(os.path.join(RUN_DIR, "api.key"), encoding="utf-8") as file:
        headers = {"Authorization": f"Bearer {file.read().strip()}", "Content-Type": "application/json"}
    url = f"http://{urllib.parse.urlsplit(URL).netloc}/api/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    # No proxy stands between this and a server on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=DEADLINE) as answer:
        return json.load(answer)


async def play_scene(scene):
    clients = {}
    for verb, *rest in scene["steps"]:
        who = clients.get(rest[0]) if rest else None
        match verb:
            case "open":
                clients[rest[0]] = await Client.open()
            case "login":
                await who.login(*rest[1:])
            case "call":
                await who.call(rest[1], {"params": rest[2], "result": rest[3]})
            case "fail":
                await who.fail(rest[1], {"params": rest[2], "error": rest[3]})
            case "hear":
                heard = await who.hear(rest[1])
                assert fits(heard, expand(rest[2])), (heard, rest)
            case "text":
                await who.socket.send(expand(rest[1]))
            case "binary":
                await who.socket.send(b"\x00")
            case "bytes":
                who.socket.transport.write(bytes.fromhex(rest[1]))
            case "close":
                await who.closed(*rest[1:])
            case "leave":
                await who.leave()
            case "api":
                answer = await asyncio.to_thread(api, rest[0], rest[1])
                assert fits(answer, rest[2]), answer
            case "signal":
                with open(os.path.join(RUN_DIR, "dunlin.pid"), encoding="utf-8") as pid:
                    os.kill(int(pid.read()), getattr(signal, f"SIG{rest[0]}"))
            case _:
                raise AssertionError(f"no such step: {verb}")


async def main():
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "protocol.json")
    with open(place, encoding="utf-8") as file:
        table = json.load(file)
    played = 0
    for block in table["methods"]:
        if block["server"] == SERVER:
            await named(block["method"], play_method(block))
            played += 1
    if SERVER == "open":
        await play_texts(table["texts"])
    for scene in sorted(table["scenes"], key=lambda scene: scene.get("last", False)):
        if scene["server"] == SERVER:
            await named(scene["name"], play_scene(scene))
            played += 1
    assert played > 0, f"no rows for the server {SERVER}"


asyncio.run(main())
