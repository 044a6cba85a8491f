package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A hubLoad is what a process of its own sends to a provider: messages that
// differ in octets which a hub cannot judge, to several rooms.
type hubLoad struct {
	Server           string // https://host:port
	Roots            []byte // PEM
	Certificate, Key []byte // PEM, of the client whose messages they are
	Messages         [][]byte
	Connections      int
	Callers, Count   int
}

// A hubCaller runs hubLoads in a process that has its connections open and
// waits to be told to begin.
type hubCaller struct {
	cmd  *exec.Cmd
	to   io.WriteCloser
	from *bufio.Reader
}

// startHubLoad starts the process of a load.
func startHubLoad(t testing.TB, l *hubLoad) *hubCaller {
	t.Helper()
	text, err := json.Marshal(struct{ Hub *hubLoad }{l})
	if err != nil {
		t.Fatal(err)
	}
	c := &hubCaller{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), loadEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.to, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.from = bufio.NewReader(out)
	t.Cleanup(func() { c.to.Close(); c.cmd.Wait() })
	if _, err := c.from.ReadString('\n'); err != nil {
		t.Fatalf("the callers' process did not become ready: %v", err)
	}
	return c
}

// run has the process send its Count messages once more.
func (c *hubCaller) run(t testing.TB) loaded {
	t.Helper()
	if _, err := io.WriteString(c.to, "go\n"); err != nil {
		t.Fatal(err)
	}
	line, err := c.from.ReadBytes('\n')
	var r loaded
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		t.Fatalf("the callers' process: %v", err)
	}
	if r.Failed > 0 {
		t.Fatalf("%d messages failed", r.Failed)
	}
	return r
}

// run is the process: it connects, says so, and sends Count messages for every
// line that it is given.
func (l *hubLoad) run() error {
	pool := x509.NewCertPool()
	cert, err := tls.X509KeyPair(l.Certificate, l.Key)
	if err != nil || !pool.AppendCertsFromPEM(l.Roots) {
		return errors.Join(errors.New("the certificates of the load"), err)
	}
	clients := make([]*http.Client, l.Connections)
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}}
		r, err := clients[i].Get(l.Server + clientapi.PathDevice)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	requests := make([]*mimi.SubmitMessageRequest, len(l.Messages))
	paths := make([]string, len(l.Messages))
	for i, b := range l.Messages {
		var room struct {
			Room    string
			Request []byte
		}
		if err := json.Unmarshal(b, &room); err != nil {
			return err
		}
		if requests[i], err = mimi.ParseSubmitMessageRequest(room.Request); err != nil {
			return err
		}
		paths[i] = room.Room
	}
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	var nonce [8]byte
	rand.Read(nonce[:])
	unique := binary.BigEndian.Uint64(nonce[:])
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return nil
		}
		var next, failed atomic.Int64
		took := make([][]time.Duration, l.Callers)
		var wg sync.WaitGroup
		before, begin := cpuTime(), time.Now()
		for i := range l.Callers {
			wg.Go(func() {
				for n := next.Add(1); n <= int64(l.Count); n = next.Add(1) {
					which := int(n) % len(requests)
					start := time.Now()
					if err := submitOver(clients[i%len(clients)], l.Server+paths[which], variant(requests[which], unique+uint64(n))); err != nil {
						failed.Add(1)
						fmt.Fprintln(os.Stderr, err)
					}
					took[i] = append(took[i], time.Since(start))
				}
			})
		}
		wg.Wait()
		unique += uint64(l.Count)
		r := loaded{Seconds: time.Since(begin).Seconds(), CPU: (cpuTime() - before).Seconds(), Failed: failed.Load()}
		all := slices.Concat(took...)
		slices.Sort(all)
		r.P50, r.P99 = milliseconds(all[len(all)/2]), milliseconds(all[len(all)*99/100])
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	}
}

// variant is a request with a number in the last octets of its ciphertext.
func variant(q *mimi.SubmitMessageRequest, n uint64) *mimi.SubmitMessageRequest {
	raw := bytes.Clone(q.AppMessage.Bytes())
	binary.BigEndian.PutUint64(raw[len(raw)-8:], n)
	m, err := mimi.ParseMLSMessage(raw)
	if err != nil {
		panic(err) // nothing but opaque octets was changed
	}
	return &mimi.SubmitMessageRequest{Protocol: q.Protocol, AppMessage: m, SendingURI: q.SendingURI}
}

// submitOver sends a message and checks that it was accepted and franked.
func submitOver(c *http.Client, url string, q *mimi.SubmitMessageRequest) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(q.Marshal()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", clientapi.ContentType)
	r, err := c.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", r.StatusCode, b)
	}
	return accepted(mimi.ParseSubmitMessageResponse(b))
}

func accepted(p *mimi.SubmitMessageResponse, err error) error {
	if err != nil {
		return err
	}
	if p.StatusCode != mimi.SubmitAccepted || p.Frank == nil {
		return fmt.Errorf("the message was not accepted and franked: status %d", p.StatusCode)
	}
	return nil
}
