# The smallest Rack application.
run ->(_) { [200, {"Content-Type" => "text/plain", "Content-Length" => "6"}, ["hello\n"]] }
