// node:http on the sockets that systemd, or supervise, has opened; on a port of its own without them.
const http = require("node:http");

const server = http.createServer((request, response) => response.end("hello\n"));
if (process.env.LISTEN_PID == process.pid) {
  server.listen({ fd: 3 });
} else {
  server.listen(8080, "127.0.0.1");
}
process.on("SIGTERM", () => server.close());
