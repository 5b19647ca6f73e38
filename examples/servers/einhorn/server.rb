# A worker as Einhorn's README describes one, with nothing but Ruby's own library: it takes its listener by number,
# acknowledges when it can serve, and drains on USR2.
require 'json'
require 'socket'

abort 'not a worker of Einhorn' unless ENV['EINHORN_MASTER_PID'].to_i == Process.ppid

listener = TCPServer.for_fd(Integer(ENV.fetch('EINHORN_FD_0')))
draining, drain = IO.pipe
Signal.trap('USR2') { drain.close }

UNIXSocket.open(ENV.fetch('EINHORN_SOCK_PATH')) do |master|
  master.write(JSON.generate(command: 'worker:ack', pid: Process.pid) + "\n")
end

answer = "pid #{Process.pid}\n"
threads = []
loop do
  ready, = IO.select([listener, draining])
  break if ready.include?(draining)

  client = listener.accept_nonblock(exception: false)
  next if client == :wait_readable

  threads.select!(&:alive?)
  threads << Thread.new(client) do |c|
    nil until [nil, "\r\n"].include?(c.gets)
    c.write "HTTP/1.1 200 OK\r\nContent-Length: #{answer.bytesize}\r\nConnection: close\r\n\r\n#{answer}"
  rescue SystemCallError
    nil
  ensure
    c.close
  end
end
threads.each(&:join)
