package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime bounds a conversation of answerPrompts.
const answerTime = 30 * time.Second

// answerPrompts runs a command on a pseudo-terminal and answers its prompts in
// turn. A prompt is output that contains the word and ends in a colon and a
// blank. It returns what the command printed; answers are not echoed, and an
// error does not contain them.
func answerPrompts(cmd *exec.Cmd, word string, answers []string) (string, error) {
	master, slave, err := openTerminal()
	if err != nil {
		return "", fmt.Errorf("pseudo-terminal: %w", err)
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return "", err
	}
	timer := time.AfterFunc(answerTime, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out := converse(master, word, answers)
	return out, cmd.Wait()
}

// converse reads until the command closes its end, which reads as an error.
func converse(master *os.File, word string, answers []string) string {
	var all bytes.Buffer
	prompt, buf := 0, make([]byte, 4096)
	for {
		n, err := master.Read(buf)
		all.Write(buf[:n])
		if tail := all.Bytes()[prompt:]; len(answers) > 0 && bytes.Contains(tail, []byte(word)) && bytes.HasSuffix(tail, []byte(": ")) {
			prompt = all.Len()
			master.WriteString(answers[0] + "\n")
			answers = answers[1:]
		}
		if err != nil {
			return all.String()
		}
	}
}

// openTerminal makes a pseudo-terminal that does not echo.
func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = silence(int(slave.Fd()))
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// silence turns echoing off.
func silence(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
