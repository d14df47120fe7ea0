// A bot that answers whoever writes to it, and whoever says "bot" in the room tea.
//
//     npm install ws
//     node crates/im/examples/bot.mjs ws://127.0.0.1:9502/ws
//
// `docs/browser-chat.md` tells of it. With a token: TOKEN=… in the environment.

import { Dunlin } from "../clients/dunlin.js";

// Node has a WebSocket of its own from version 22 on.
const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
const who = process.env.TOKEN ? { token: process.env.TOKEN } : { user: "bot" };
const im = new Dunlin(process.argv[2], { ...who, device: { id: "bot-1", kind: "bot" }, WebSocket });

im.on("message", async ({ from, to, body }) => {
  // Messages of one's own come back where one has other devices, or is in the room.
  if (!from || from.user === "bot") return;
  if (to.room && !String(body).includes("bot")) return;
  await im.send(to.room ? to : { user: from.user }, `${from.user}, you said: ${body}`);
});

const login = await im.connect();
await im.join("tea");
console.log(`${login.user} is here`);
