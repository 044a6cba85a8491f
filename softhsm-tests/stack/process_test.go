//go:build soak

package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// patience is the longest that a party may take to answer.
const patience = 90 * time.Second

// errDead is returned for an order to a process that was killed.
var errDead = errors.New("the process is dead")

// A party is a provider or a client, which is a process as long as it lives.
type party struct {
	t     *testing.T
	name  string
	path  string // of its settings
	tally *tally

	mu  sync.Mutex // is held while an order is carried out, and by kill and start
	cmd *exec.Cmd
	in  io.WriteCloser
	out chan *line // answers; closed when all that the process wrote is read
	log *os.File   // of its standard error
}

func newParty(t *testing.T, dir, name string, s *settings, y *tally) *party {
	t.Helper()
	p := &party{t: t, name: name, path: filepath.Join(dir, "settings.json"), tally: y}
	s.write(t, p.path)
	p.log = must[*os.File](t)(os.Create(filepath.Join(dir, "log")))
	t.Cleanup(func() { p.kill(); p.log.Close() })
	return p
}

// start makes the process.
func (p *party) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = append(os.Environ(), partyEnv+"="+p.path), p.log
	if p.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.out = cmd, make(chan *line, 1)
	go p.listen(out, p.out)
	return nil
}

// listen reads what the process tells, to the last that it wrote.
func (p *party) listen(out io.Reader, answers chan<- *line) {
	defer close(answers)
	d := json.NewDecoder(out)
	for {
		l := new(line)
		if err := d.Decode(l); err != nil {
			return
		}
		if l.Answer {
			answers <- l
		} else {
			p.tally.add(p.name, l)
		}
	}
}

// kill ends the process as kill -9 does. What it told before counts.
func (p *party) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	for range p.out { // to its end
	}
	p.cmd.Wait()
	p.cmd = nil
}

// ask gives an order and decodes the answer into v, if that is not nil.
func (p *party) ask(o *order, v any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errDead
	}
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, o.Do, err)
	}
	select {
	case l, ok := <-p.out:
		switch {
		case !ok:
			return fmt.Errorf("%s: %s: it ended by itself", p.name, o.Do)
		case l.Err != "":
			return fmt.Errorf("%s: %s: %s", p.name, o.Do, l.Err)
		case v == nil:
			return nil
		}
		return json.Unmarshal(l.Value, v)
	case <-time.After(patience):
		return fmt.Errorf("%s: %s: no answer for %v", p.name, o.Do, patience)
	}
}

// A tally is what clients told of their load.
type tally struct {
	mu        sync.Mutex // guards what follows
	acks      []ack
	commits   int
	open      int
	surprises []string
}

func (y *tally) add(name string, l *line) {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch {
	case l.Ack != nil:
		y.acks = append(y.acks, *l.Ack)
	case l.Commit:
		y.commits++
	case l.Open:
		y.open++
	case l.Surprise != "":
		y.surprises = append(y.surprises, name+": "+l.Surprise)
	}
}
