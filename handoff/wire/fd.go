package wire

// FDs lends listeners without a word about them: whoever reads the command line
// or the environment that {fd:NAME} was written into knows the numbers (Circus,
// uvicorn --fd, HAProxy's fd@N and their like).
func FDs(listeners []Listener) Plan {
	var p Plan
	for _, l := range listeners {
		p.Files = append(p.Files, l.FD)
	}
	return p
}
