package wire

// addInetd gives the one listener as fd 0, as inetd(8) does for a "wait" service:
// Java's System.inheritedChannel() finds it there (sun/nio/ch/InheritedChannel.java),
// and so Tomcat's useInheritedChannel and Jetty's inheritChannel. It is fd 3 as
// well.
func addInetd(r *Request, p *Plan) error {
	p.Stdin = r.Listeners[0].FD
	return nil
}
