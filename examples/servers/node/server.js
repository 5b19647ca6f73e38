// node:http as its documentation shows it, with close() on SIGTERM.
const http = require("node:http");

const server = http.createServer((request, response) => response.end("hello\n"));
server.listen(+process.argv[2], "127.0.0.1");
process.on("SIGTERM", () => server.close());
