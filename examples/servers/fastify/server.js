// Fastify on the sockets that systemd, or supervise, has opened. close() answers what is under way, and closes idle
// connections.
const fastify = require("fastify")({ forceCloseConnections: "idle" });

fastify.get("/", async () => "hello\n");
fastify.listen({ fd: +process.argv[2] }).catch((error) => {
  console.error(error);
  process.exit(1);
});
process.on("SIGTERM", () => fastify.close());
