package listen

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// child plays a part in a process of its own: it has a listener at descriptor
// 3, says what it is by lines on standard output, and ends when standard input
// does.
func child(play string) int {
	switch play {
	case "go": // a Go server, which uses epoll
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("ready")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, "child")
				c.Close()
			}
		}()
	case "poll": // a server that knows only poll(2)
		fmt.Println("ready")
		go func() {
			for {
				fds := []unix.PollFd{{Fd: 3, Events: unix.POLLIN}}
				if _, err := unix.Poll(fds, -1); err == nil {
					if c, _, err := unix.Accept(3); err == nil {
						unix.Write(c, []byte("child"))
						unix.Close(c)
					}
				}
			}
		}()
	case "fussy": // the listener in one epoll set as usual and in another as exclusive; a line takes it out of both
		var sets [2]int
		for i, exclusive := range []uint32{0, unix.EPOLLEXCLUSIVE} {
			var err error
			if sets[i], err = unix.EpollCreate1(0); err != nil {
				fmt.Println(err)
				return 1
			}
			if err := unix.EpollCtl(sets[i], unix.EPOLL_CTL_ADD, 3, &unix.EpollEvent{Events: unix.EPOLLIN | exclusive, Fd: 3}); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		fmt.Println("ready")
		buf := make([]byte, 1)
		for {
			if n, _ := os.Stdin.Read(buf); n == 0 {
				return 0
			}
			events := make([]unix.EpollEvent, 1)
			var said []string
			for _, ep := range sets {
				n, err := unix.EpollWait(ep, events, 0)
				said = append(said, fmt.Sprint(n, " ", err, " ", unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, 3, nil)))
			}
			fmt.Println(strings.Join(said, "; "))
		}
	case "numbers": // the listener under many numbers in one epoll set; each line asks how many events there are
		ep, err := unix.EpollCreate1(0)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for n := firstNumber; n <= lastNumber; n++ {
			var st unix.Stat_t
			if n == ep || unix.Fstat(n, &st) == nil {
				continue // the runtime's own
			}
			if err := unix.Dup3(3, n, unix.O_CLOEXEC); err != nil {
				fmt.Println(err)
				return 1
			}
			event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(n), Pad: int32(-n)}
			if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, n, &event); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		fmt.Println("ready")
		buf := make([]byte, 1)
		for {
			if n, _ := os.Stdin.Read(buf); n == 0 {
				return 0
			}
			events := make([]unix.EpollEvent, 200)
			n, err := unix.EpollWait(ep, events, 0)
			if err != nil {
				fmt.Println(err)
				return 1
			}
			var numbers []string
			for _, e := range events[:n] {
				if e.Pad != -e.Fd {
					fmt.Println("data is not what it was")
					return 1
				}
				numbers = append(numbers, strconv.Itoa(int(e.Fd)))
			}
			fmt.Println(n, strings.Join(numbers, " "))
		}
	case "leave": // removes its listener's path, as Go's Close does, and binds it again
		path, err := pathOf(3)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_ = os.Remove(path)
		if _, err := net.Listen("unix", path); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("ready")
	default:
		fmt.Println("unknown part", play)
		return 2
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}
