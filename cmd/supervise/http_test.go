package main

// --http: what Prometheus, a load balancer and a browser see.

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	_ "image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// webbed starts supervise with --http before the server of the stories, whose
// steps are read from a file for each generation.
func webbed(t *testing.T, steps string, flags ...string) (r *running, web string, behave func(string)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "behave")
	behave = func(steps string) {
		if err := os.WriteFile(file, []byte(steps), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	behave(steps)
	server := filepath.Join(t.TempDir(), "server")
	if err := os.Symlink(self(t), server); err != nil {
		t.Fatal(err)
	}
	argv := append([]string{superviseLink(t), "--name", "web", "-l", "http=127.0.0.1:0", "--http", "127.0.0.1:0"}, flags...)
	r = startSupervise(t, nil, append(argv, "--", server, "@"+file)...)
	web = "http://" + r.await(`metrics, health and status: http=(\S+)`)[1]
	return r, web, behave
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// eventually waits until a page has what is wanted.
func eventually(t *testing.T, url, want string) string {
	t.Helper()
	re := regexp.MustCompile("(?m)" + want)
	for end := time.Now().Add(longest); ; time.Sleep(5 * time.Millisecond) {
		_, body := fetch(t, url)
		if re.MatchString(body) {
			return body
		}
		if time.Now().After(end) {
			t.Fatalf("%s never has %q:\n%s", url, want, body)
		}
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	r, web, behave := webbed(t, "print:hello <b>\nserve\n")
	r.await(`ready: .*generation=1 `)
	for path, want := range map[string]string{
		"/": "<title>supervise</title>", "/healthz": "^ok\n$", "/readyz": "^ok\n$", "/v1/services": `"web"`,
	} {
		if status, body := fetch(t, web+path); status != 200 || !regexp.MustCompile(want).MatchString(body) {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	eventually(t, web+"/v1/logs", `"hello \\u003cb\\u003e"`)
	if status, _ := fetch(t, web+"/v1/rollout"); status == 200 {
		t.Error("a rollout by the web")
	}

	// A rollout, and one that fails.
	r.signal(unix.SIGHUP)
	r.await(`rollout done`)
	behave("exit:7\n")
	r.signal(unix.SIGHUP)
	r.await(`rollout failed`)
	for _, want := range []string{
		`^supervise_rollouts_total\{service="web",result="done"\} 1$`,
		`^supervise_rollouts_total\{service="web",result="failed"\} 1$`,
		`^supervise_rollout_seconds_count\{service="web"\} 1$`,
		`^supervise_gate_seconds_count\{service="web"\} 1$`,
		`^supervise_generation\{service="web"\} 2$`,
		`^supervise_start_seconds_count\{service="web"\} 2$`,
		`^supervise_starts_total\{service="web"\} 3$`,
		`^supervise_service_up\{service="web"\} 1$`,
		`^supervise_socket_lanes\{service="web",socket="http",address="127\.0\.0\.1:\d+"\} \d$`,
	} {
		eventually(t, web+"/metrics", want)
	}

	// Clients that come while nobody serves wait, and are counted.
	gate := filepath.Join(t.TempDir(), "gate")
	behave("until:" + gate + "\nserve\n")
	_, st := fetch(t, web+"/v1/status")
	var status struct {
		Services []struct {
			Current struct{ PID int }
			Sockets []struct{ Address string }
		}
	}
	if err := json.Unmarshal([]byte(st), &status); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.Services[0].Current.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await(`started: .*generation=4 `)
	if status, body := fetch(t, web+"/readyz"); status != 503 || body != "web starting\n" {
		t.Errorf("%d %q", status, body)
	}
	answers := make(chan error, 3)
	for range cap(answers) {
		go func() {
			_, err := get(status.Services[0].Sockets[0].Address)
			answers <- err
		}()
	}
	eventually(t, web+"/metrics", `^supervise_socket_queue\{.*\} 3$`)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	eventually(t, web+"/metrics", `^supervise_restarts_total\{service="web",cause="signal"\} 1$`)
	eventually(t, web+"/metrics", `^supervise_outage_seconds_count\{service="web"\} 1$`)
	eventually(t, web+"/readyz", `^ok$`)

	_, past := fetch(t, web+"/v1/history")
	var history struct {
		Services map[string][]struct {
			Generation int
			Failed     bool
			Reason     string
			Phases     []struct{ Phase string }
		}
	}
	if err := json.Unmarshal([]byte(past), &history); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range history.Services["web"] {
		words := []string{strconv.Itoa(g.Generation), fmt.Sprint(g.Failed)}
		for _, p := range g.Phases {
			words = append(words, p.Phase)
		}
		got = append(got, strings.Join(words, " "))
	}
	want := []string{"1 false starting serving draining ending", "2 true starting serving ending", "3 true starting ending", "4 false starting serving"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("history:\n%s", strings.Join(got, "\n"))
	}
	r.signal(unix.SIGTERM)
	if status := r.wait(); status != 0 {
		t.Errorf("ended with %d", status)
	}
}

func TestHTTPAddress(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"udp://127.0.0.1:0": "write an address of tcp",
		"nonsense":          "--http",
	} {
		c := exec.Command(superviseLink(t), "--http", flag, "--", "true")
		c.Env = quiet()
		out, err := c.CombinedOutput()
		if err == nil || c.ProcessState.ExitCode() != 64 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v %s", flag, err, out)
		}
	}
	// One that is taken: who has it is said, and nothing is started.
	_, web, _ := webbed(t, "serve\n")
	c := exec.Command(superviseLink(t), "--http", strings.TrimPrefix(web, "http://"), "--", "echo", "never")
	c.Env = quiet()
	out, _ := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 69 || !strings.Contains(string(out), "supervise") || strings.Contains(string(out), "never\n") {
		t.Errorf("%d %s", c.ProcessState.ExitCode(), out)
	}
}

// The status page in a real browser: its script runs under its own policy, shows
// the service, both generations of a rollout beside one another, and what was
// said, as text. STATUS_PAGE names a file for the picture.
func TestStatusPage(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here:", err)
	}
	r, web, behave := webbed(t, "serve\n")
	r.await(`ready: .*generation=1 `)
	r.signal(unix.SIGHUP)
	r.await(`rollout done`)
	behave("complain:I cannot\nexit:7\n")
	r.signal(unix.SIGHUP)
	r.await(`rollout failed`)
	behave("print:<b>hello</b> & good day\nprint:third time lucky\nserve\n")
	r.signal(unix.SIGHUP)
	r.await(`rollout done`)
	eventually(t, web+"/v1/logs", "third time lucky")

	picture := os.Getenv("STATUS_PAGE")
	if picture == "" {
		picture = filepath.Join(t.TempDir(), "page.png")
	}
	browse := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 2*longest)
		defer cancel()
		args = append([]string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
			"--user-data-dir=" + t.TempDir(), "--window-size=1100,900", "--virtual-time-budget=5000",
		}, args...)
		c := exec.CommandContext(ctx, chromium, append(args, web+"/")...)
		var said strings.Builder
		c.Stderr = &said
		out, err := c.Output()
		if err != nil {
			t.Fatalf("chromium: %v\n%s", err, said.String())
		}
		return string(out)
	}
	dom := browse("--dump-dom")
	for _, want := range []string{
		`data-service="web"`, `class="badge up"`, `>generation 1<`, `>generation 2<`, `>generation 4<`, `class="draining"`, `class="serving"`, `class="died"`,
		`&lt;b&gt;hello&lt;/b&gt; &amp; good day`, `third time lucky`, `data-shown="`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(dom, "<b>") || strings.Contains(dom, `id="lost" role="status" style="display: block`) {
		t.Error("markup of others, or no answer")
	}
	if t.Failed() {
		t.Log(strings.Split(dom, "<script>")[0])
	}
	browse("--screenshot=" + picture)
	f, err := os.Open(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	colours := map[uint32]bool{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y += 2 {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x += 2 {
			red, green, blue, _ := img.At(x, y).RGBA()
			colours[red>>8<<16|green>>8<<8|blue>>8] = true
		}
	}
	for _, want := range []uint32{0x1f9d57, 0xc9372c, 0x3b7dd8} { // serving, died, draining
		if !colours[want] {
			t.Errorf("the picture has no #%06x", want)
		}
	}
	r.signal(unix.SIGTERM)
	r.wait()
}
