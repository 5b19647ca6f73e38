package page

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// The policy allows the script that is there, and the page has no other.
func TestPolicy(t *testing.T) {
	_, rest, _ := strings.Cut(HTML(), "<script>")
	script, after, ok := strings.Cut(rest, "</script>")
	if !ok || strings.Contains(after, "<script") {
		t.Fatal("the page has not one script")
	}
	sum := sha256.Sum256([]byte(script))
	if want := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(Header, "'sha256-"+want+"'") {
		t.Errorf("the script changed: write 'sha256-%s' into Header", want)
	}
}

// Nothing is loaded from elsewhere, and nothing becomes markup.
func TestSelfContained(t *testing.T) {
	for _, bad := range []string{"http://", "https://", "innerHTML", "insertAdjacent", "document.write", "eval(", " onclick", " onload"} {
		if strings.Contains(HTML(), bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if n := len(HTML()); n > 32<<10 {
		t.Errorf("%d bytes", n)
	}
}
