// node serve.mjs [PORT]: serves public/ on this machine. Any static server does; the two headers that isolate the
// page (Cross-Origin-*) let WebAssembly use several threads.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const PUBLIC = join(dirname(fileURLToPath(import.meta.url)), "public");
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** The path that an address names, which stays inside: a URL has no ".." left. And what is there, if anything. */
function find(address) {
  try {
    const { pathname } = new URL(address, "http://localhost");
    const path = join(PUBLIC, pathname.endsWith("/") ? `${pathname}index.html` : pathname);
    return [path, statSync(path)];
  } catch {
    return [];
  }
}

const server = createServer((request, response) => {
  const [path, file] = find(request.url);
  if (!file?.isFile() || !["GET", "HEAD"].includes(request.method)) {
    response.writeHead(404).end("not found\n");
    return;
  }
  response.writeHead(200, {
    "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
    "Content-Length": file.size,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
  });
  if (request.method === "HEAD") response.end();
  else createReadStream(path).pipe(response);
});

server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  console.log(`http://localhost:${server.address().port}/`);
});
