// A token by the secret beside the run directory, made by Node alone.

import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export async function jwt(runDir, claims) {
  const secret = (await readFile(join(runDir, "..", "token.key"), "utf8")).trimEnd();
  const part = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
  const message = `${part({ alg: "HS256", typ: "JWT", kid: "h" })}.${part(claims)}`;
  return `${message}.${createHmac("sha256", secret).update(message).digest("base64url")}`;
}
