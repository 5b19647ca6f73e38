package intercept_test

import (
	"log"
	"os"

	"github.com/supervise/supervise/handoff/intercept"
)

// logging holds nothing: it only tells what a child binds.
type logging struct{}

func (logging) Bind(c *intercept.Call) intercept.Decision {
	log.Printf("bind %s", c.Key)
	return intercept.Pass()
}

func (logging) Listen(c *intercept.Call) bool {
	log.Printf("listen %s", c.Key)
	return false
}

func (logging) Unlink(*intercept.Removal) bool { return false }

func (logging) Event(e intercept.Event) { log.Print(e) }

// A program started under the filter, and its calls served until the last
// process of its tree is gone.
func Example() {
	var notifyFD int
	err := intercept.Thread(func() (err error) {
		if notifyFD, err = intercept.Install(intercept.Options{}); err != nil {
			return err
		}
		_, err = os.StartProcess("/usr/sbin/nginx", []string{"nginx"}, &os.ProcAttr{})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	server, err := intercept.NewServer(notifyFD, intercept.ServerOptions{}, logging{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	if err := server.Run(); err != nil {
		log.Print(err)
	}
}
