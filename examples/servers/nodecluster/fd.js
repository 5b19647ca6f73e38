// node:cluster on a descriptor: the primary listens on it for its workers.
const cluster = require("node:cluster");
const http = require("node:http");

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  process.on("SIGTERM", () => cluster.disconnect());
} else {
  const server = http.createServer((request, response) => response.end("hello\n"));
  server.listen({ fd: +process.argv[2] });
  process.on("SIGTERM", () => {}); // the primary disconnects it, and then it ends
}
