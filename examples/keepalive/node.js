// A Node server that loses nothing on kept connections when it is replaced:
// it does not close idle ones, for a request may be on its way on them; it says
// "Connection: close" with each answer instead. What is idle until shortly before
// SIGKILL (TIMEOUT_STOP_USEC, from supervise) is closed then.
const http = require("node:http");
const net = require("node:net");

let draining = false;
const server = http.createServer((request, response) => {
  if (draining) response.setHeader("Connection", "close");
  response.end("hello\n");
});
server.keepAliveTimeout = 0; // nor by a timeout of its own: 5 s otherwise
server.listen(+process.argv[2], "127.0.0.1");

process.on("SIGTERM", () => {
  draining = true;
  const patience = Number(process.env.TIMEOUT_STOP_USEC ?? 25e6) / 1000 - 2000;
  net.Server.prototype.close.call(server); // http's own close() ends idle connections
  setTimeout(() => server.closeIdleConnections(), patience).unref();
});
