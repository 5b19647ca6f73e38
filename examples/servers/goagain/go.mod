module server

go 1.26.0

require github.com/rcrowley/goagain v0.0.0-20140424170347-f2f192b5d1a9
