package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Notifier tells the service manager what the process does, as sd_notify(3)
// does. The zero value tells nobody.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// NotifierFromEnv reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. It takes
// them out of the environment, so that child processes do not speak for us.
func NotifierFromEnv() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	return n
}

// pulse is how often the watchdog wants to hear of us: half of its patience; 0
// where there is none.
func (n *Notifier) pulse() time.Duration { return n.watchdog / 2 }

// send writes one datagram of assignments. Nobody listening is no error.
func (n *Notifier) send(lines ...string) error {
	if n.socket == "" {
		return nil
	}
	name := n.socket
	if strings.HasPrefix(name, "@") { // an abstract socket of Linux
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Ready, Status, Stopping and Alive are the messages of sd_notify(3).
func (n *Notifier) Ready() error               { return n.send("READY=1", "STATUS=serving") }
func (n *Notifier) Status(status string) error { return n.send("STATUS=" + oneLine(status)) }
func (n *Notifier) Stopping() error            { return n.send("STOPPING=1", "STATUS=draining") }
func (n *Notifier) Alive() error               { return n.send("WATCHDOG=1") }

// Reloading says that settings are read again; Ready ends it. The time is that
// of CLOCK_MONOTONIC, as Type=notify-reload wants it.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return n.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

func oneLine(s string) string { return strings.Map(lineBreak, s) }

func lineBreak(r rune) rune {
	if r == '\n' || r == 0 {
		return ' '
	}
	return r
}
