package control

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Page is a path that a server on TCP has beside the routes of the API that only
// look: /v1/status, /v1/services, /v1/events and /v1/logs.
type Page struct {
	Path  string
	Serve func(ctx context.Context) (Answer, error)
}

// Answer is what a page says.
type Answer struct {
	Status int    // 200, 503
	Type   string // Content-Type
	Body   []byte
	Header string // further lines, each with its CR LF
}

// NewWeb serves pages and what may be seen of backend to whoever can connect to
// fd, a listening TCP or unix socket that it owns from then on: nobody is asked
// who he is, nothing can be changed, and what a process was started with stays
// here. Where the address is a loopback one, requests for other host names are
// refused: a page of somebody else, in a browser of this machine, must not read
// it by giving its own name this address.
func NewWeb(fd int, backend Backend, pages []Page) *Server {
	s := NewServer(&Endpoint{fd: fd}, reader{backend}, Options{})
	s.web, s.pages = true, pages
	return s
}

// reader is a backend of which one can only read.
type reader struct{ Backend }

// Status leaves out command lines: they may have secrets in them.
func (r reader) Status(ctx context.Context, services []string) (Status, error) {
	st, err := r.Backend.Status(ctx, services)
	for i := range st.Services {
		s := &st.Services[i]
		s.Command = nil
		for _, g := range []*Generation{s.Current, s.Candidate, s.Standby} {
			if g != nil {
				g.Processes = nil
			}
		}
		for j := range s.Draining {
			s.Draining[j].Processes = nil
		}
	}
	return st, err
}

// Do changes nothing.
func (reader) Do(context.Context, Command, func(Event)) error {
	return Errorf(Forbidden, "nothing can be changed here")
}

// answerPage answers a request of the web, and reports whether that was a page.
func (s *Server) answerPage(w io.Writer, req *request) bool {
	for _, p := range s.pages {
		if p.Path != req.path {
			continue
		}
		if req.method != "GET" && req.method != "HEAD" {
			writeError(w, Errorf(BadRequest, "%s %s: use GET", req.method, req.path))
			return true
		}
		a, err := p.Serve(s.ctx)
		if err != nil {
			writeError(w, err)
			return true
		}
		head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
			a.Status, reason(a.Status), a.Type, len(a.Body), a.Header)
		if req.method == "HEAD" {
			a.Body = nil
		}
		_, _ = w.Write(append([]byte(head), a.Body...))
		return true
	}
	return false
}

// webRoutes are the routes that change nothing.
func webRoutes() []route { return []route{statusRoute, namesRoute, eventsRoute, logsRoute} }

// foreignHost refuses requests to a loopback address under a name that is none of it.
func foreignHost(f *os.File, req *request) error {
	host := req.host
	if h, ok := strings.CutPrefix(host, "["); ok {
		host, _, _ = strings.Cut(h, "]")
	} else if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || !isLoopback(f) {
		return nil
	}
	return Errorf(Forbidden, "this is not %.80q: use localhost or the address", host)
}

// isLoopback reports whether the connection came to a loopback address.
func isLoopback(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var a unix.Sockaddr
	if raw.Control(func(fd uintptr) { a, err = unix.Getsockname(int(fd)) }) != nil || err != nil {
		return false
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr).IsLoopback()
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap().IsLoopback()
	}
	return false
}
