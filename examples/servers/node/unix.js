// node:http on a unix socket, with close() on SIGTERM.
const http = require("node:http");

const server = http.createServer((request, response) => response.end("hello\n"));
server.listen(process.argv[2]);
process.on("SIGTERM", () => server.close());
