// node:cluster: the primary accepts and deals the connections out to two
// workers, which is its default.
const cluster = require("node:cluster");
const http = require("node:http");

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
  process.on("SIGTERM", () => cluster.disconnect());
} else {
  const server = http.createServer((request, response) => response.end("hello\n"));
  server.listen(+process.argv[2], "127.0.0.1");
  process.on("SIGTERM", () => {}); // the primary disconnects it, and then it ends
}
