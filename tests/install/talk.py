"""Clients for the scripts beside this one: ann writes to bob without a pause, and all of it must come."""

import asyncio
import json
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

DEADLINE = 60
URL = "ws://127.0.0.1:9502/ws"


def wait_until(what, holds):
    until = time.monotonic() + DEADLINE
    while not (value := holds()):
        assert time.monotonic() < until, f"not within {DEADLINE} s: {what}"
        time.sleep(0.05)
    return value


class Client:
    """Logged in; keeps what comes."""

    @classmethod
    async def login(cls, user):
        self = cls()
        self.messages, self.bye, self.closed, self.calls = [], None, None, {}
        self.ws = await connect(URL, ping_interval=None)
        self.reader = asyncio.create_task(self.read())
        await self.call("login", user=user, device={"id": "python"})
        return self

    async def read(self):
        try:
            while True:
                said = json.loads(await self.ws.recv())
                if said.get("id") in self.calls:
                    self.calls.pop(said["id"]).set_result(said)
                elif said.get("method") == "message":
                    self.messages.append(said["params"]["body"])
                elif said.get("method") == "bye":
                    self.bye = said["params"]["code"]
        except ConnectionClosed as end:
            self.closed = end.rcvd.code if end.rcvd else 1006
            for call in self.calls.values():
                call.set_exception(end)

    async def call(self, method, **params):
        number = str(time.monotonic_ns())
        self.calls[number] = asyncio.get_running_loop().create_future()
        await self.ws.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self.calls[number], DEADLINE)
        assert "result" in answer, answer
        return answer["result"]


class Talk:
    """ann writes to bob without a pause until told: all of it comes, once, in order."""

    @classmethod
    async def begin(cls):
        self = cls()
        self.ann, self.bob, self.sent = await Client.login("ann"), await Client.login("bob"), 0
        self.resume()
        return self

    def resume(self):
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self.write())

    async def write(self):
        while not self.over.is_set():
            took = await self.ann.call("send", to={"user": "bob"}, body=self.sent)
            assert took["sessions"] == 1, f"message {self.sent}: {took}"
            self.sent += 1
            await asyncio.sleep(0.002)

    async def all_of_it_came(self):
        self.over.set()
        await self.task
        async with asyncio.timeout(DEADLINE):
            while len(self.bob.messages) < self.sent and self.bob.closed is None:
                await asyncio.sleep(0.01)
        assert self.bob.messages == list(range(self.sent)), f"{self.sent} were sent, bob got {self.bob.messages}"
        return self.sent
