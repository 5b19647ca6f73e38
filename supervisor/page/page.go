// Package page is the status page: one static file, made into the program, that
// asks the supervisor every second while somebody looks at it. There is no build
// step and nothing is loaded from elsewhere. It reads /v1/status, /v1/history,
// /v1/logs and /v1/events; all that it shows goes in as text, never as markup.
package page

import _ "embed"

//go:embed index.html
var html string

// HTML is the page.
func HTML() string { return html }

// Header are the header lines that belong to it, each with its CR LF: nothing but
// its own script runs, and nobody frames it.
const Header = "Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; " +
	"script-src 'sha256-K5s7lF+DwFlZbFoByjZ8G44y872CLIKAFp6iFuR73Lw='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n" +
	"Referrer-Policy: no-referrer\r\n"
