# WEBrick, shut down on SIGTERM.
require "webrick"

server = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1", Port: ARGV[0].to_i,
  AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN)
)
server.mount_proc("/") { |_, response| response.body = "hello\n" }
trap("TERM") { server.shutdown }
server.start
