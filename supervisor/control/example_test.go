package control_test

import (
	"context"
	"fmt"
	"time"

	"github.com/supervise/supervise/supervisor/control"
)

// A deploy script in Go: roll a service out and say why when that failed.
func Example() {
	c, err := control.Dial("/run/supervise/web.sock")
	if err != nil {
		fmt.Println(err) // a *control.DialError: no supervisor is there
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err = c.Rollout(ctx, []string{"web"}, func(e control.Event) {
		fmt.Println(e.Time.Format(time.TimeOnly), e)
	})
	if err != nil {
		fmt.Println("not rolled out:", err)
	}
}
