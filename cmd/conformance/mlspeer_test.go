package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mls"
)

// A driver runs a peer and speaks with it through pipes, as another process
// would.
type driver struct {
	t      *testing.T
	in     io.WriteCloser
	out    *bufio.Reader
	status chan int
	next   int
}

// An answer is a result or an error.
type answer struct {
	ID     json.RawMessage `json:"id"`
	Result fields          `json:"result"`
	Error  *peerError      `json:"error"`
}

type fields map[string]any

func (f fields) text(name string) string {
	s, _ := f[name].(string)
	return s
}

func (f fields) number(name string) int {
	n, ok := f[name].(float64)
	if !ok {
		return -1
	}
	return int(n)
}

func startPeer(t *testing.T, args ...string) *driver {
	t.Helper()
	stdin, in := io.Pipe()
	out, stdout := io.Pipe()
	d := &driver{t: t, in: in, out: bufio.NewReader(out), status: make(chan int, 1)}
	var diag bytes.Buffer
	go func() {
		d.status <- run(append([]string{"mls-peer"}, args...), stdin, stdout, &diag)
		stdout.Close()
	}()
	t.Cleanup(func() {
		in.Close()
		if status := <-d.status; status != exitOK {
			t.Errorf("exit status %d: %s", status, diag.String())
		}
	})
	return d
}

// raw sends a line and reads one.
func (d *driver) raw(line string) *answer {
	d.t.Helper()
	if _, err := io.WriteString(d.in, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
	got, err := d.out.ReadBytes('\n')
	if err != nil {
		d.t.Fatalf("reading the answer to %.200s: %v", line, err)
	}
	a := new(answer)
	if err := json.Unmarshal(got, a); err != nil {
		d.t.Fatalf("%s: %v", got, err)
	}
	if (a.Result == nil) == (a.Error == nil) {
		d.t.Fatalf("neither result nor error, or both: %s", got)
	}
	return a
}

func (d *driver) ask(method string, params fields) *answer {
	d.t.Helper()
	d.next++
	line, err := json.Marshal(fields{"id": d.next, "method": method, "params": params})
	if err != nil {
		d.t.Fatal(err)
	}
	a := d.raw(string(line))
	if string(a.ID) != fmt.Sprint(d.next) {
		d.t.Fatalf("answer to %s instead of %d", a.ID, d.next)
	}
	return a
}

// do is ask for what must succeed.
func (d *driver) do(method string, params fields) fields {
	d.t.Helper()
	a := d.ask(method, params)
	if a.Error != nil {
		d.t.Fatalf("%s: %s: %s", method, a.Error.Code, a.Error.Message)
	}
	return a.Result
}

// refuse is ask for what must fail with a code.
func (d *driver) refuse(code, method string, params fields) {
	d.t.Helper()
	a := d.ask(method, params)
	if a.Error == nil || a.Error.Code != code || a.Error.Message == "" {
		d.t.Errorf("%s: got %+v, want the error %s", method, a, code)
	}
}

// An actor is one client of a driver with its state in the group.
type actor struct {
	*driver
	client, state string
	name          string
}

func (d *driver) actor(suite int, name string, more fields) *actor {
	d.t.Helper()
	params := fields{"suite": suite, "identity": hexOf(name)}
	for k, v := range more {
		params[k] = v
	}
	return &actor{d, d.do("create_client", params).text("client"), "", name}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }

func (a *actor) with(params fields) fields {
	out := fields{"state": a.state}
	for k, v := range params {
		out[k] = v
	}
	return out
}

func (a *actor) keyPackage() string {
	return a.do("create_key_package", fields{"client": a.client}).text("key_package")
}

func (a *actor) create(params fields) {
	p := fields{"client": a.client, "group_id": hexOf("group")}
	for k, v := range params {
		p[k] = v
	}
	a.state = a.do("create_group", p).text("state")
}

func (a *actor) join(commit fields) {
	a.state = a.do("join", fields{"client": a.client, "welcome": commit.text("welcome"), "ratchet_tree": commit.text("ratchet_tree")}).text("state")
}

// A cast is the members of one group.
type cast []*actor

// commit has one member commit and the others follow.
func (c cast) commit(by *actor, params fields) fields {
	by.t.Helper()
	p := by.with(params)
	p["merge"] = true
	r := by.do("commit", p)
	for _, a := range c {
		if a != by {
			got := a.do("process", a.with(fields{"message": r.text("commit")}))
			if got.text("kind") != "commit" {
				by.t.Fatalf("%s: kind %v", a.name, got)
			}
		}
	}
	return r
}

// agree checks that all are in the same epoch, and that everybody reads
// everybody.
func (c cast) agree() {
	t := c[0].t
	t.Helper()
	want := c[0].do("state", c[0].with(nil))
	for _, a := range c[1:] {
		got := a.do("state", a.with(nil))
		for _, name := range []string{"epoch_authenticator", "tree_hash", "confirmed_transcript_hash", "group_context", "ratchet_tree"} {
			if got.text(name) != want.text(name) || got.text(name) == "" {
				t.Errorf("%s: %s differs", a.name, name)
			}
		}
		if fmt.Sprint(got["members"]) != fmt.Sprint(want["members"]) {
			t.Errorf("%s: members %v, want %v", a.name, got["members"], want["members"])
		}
	}
	for _, from := range c {
		m := from.do("send", from.with(fields{"plaintext": hexOf("hello from " + from.name), "authenticated_data": "ad"})).text("message")
		for _, to := range c {
			if to == from {
				continue
			}
			got := to.do("process", to.with(fields{"message": m}))
			if got.text("kind") != "application" || got.text("plaintext") != hexOf("hello from "+from.name) || got.text("authenticated_data") != "ad" {
				t.Errorf("%s from %s: %v", to.name, from.name, got)
			}
		}
	}
}

// trio makes a group of three clients on two peers.
func trio(t *testing.T, suite int, args ...string) (cast, *driver) {
	t.Helper()
	one, two := startPeer(t, args...), startPeer(t)
	alice, bob, carol := one.actor(suite, "alice", nil), two.actor(suite, "bob", nil), one.actor(suite, "carol", nil)
	alice.create(nil)
	bob.join(cast{alice}.commit(alice, fields{"proposals": []fields{{"type": "add", "key_package": bob.keyPackage()}}}))
	carol.join(cast{alice, bob}.commit(bob, fields{"wire": "private", "ratchet_tree_extension": false,
		"proposals": []fields{{"type": "add", "key_package": carol.keyPackage()}}}))
	return cast{alice, bob, carol}, two
}

func TestPeerGroups(t *testing.T) {
	for _, suite := range []int{1, 2, 3, 5, 7} {
		t.Run(fmt.Sprintf("suite %d", suite), func(t *testing.T) { testPeerGroup(t, suite) })
	}
}

func testPeerGroup(t *testing.T, suite int, args ...string) {
	c, _ := trio(t, suite, args...)
	alice, bob, carol := c[0], c[1], c[2]
	c.agree()
	for _, wire := range []string{"public", "private"} {
		c.propose(carol, wire, fields{"type": "update"})
		c.commit(alice, fields{"wire": wire})
		c.commit(bob, fields{"wire": wire, "authenticated_data": "00ff"})
		c.agree()
	}
	for _, a := range c {
		a.do("store_psk", a.with(fields{"psk_id": "01", "psk": "0203"}))
	}
	epoch := alice.do("state", alice.with(nil)).number("epoch")
	c.commit(bob, fields{"proposals": []fields{{"type": "psk", "psk_id": "01"}, {"type": "resumption_psk", "epoch": epoch}}})
	c.agree()
	removed := bob.do("process", bob.with(fields{"message": c[:1].commit(alice, fields{"proposals": []fields{{"type": "remove", "identity": hexOf("bob")}}}).text("commit")}))
	if removed["active"] != false {
		t.Errorf("after its removal: %v", removed)
	}
	bob.refuse(codeFailed, "send", bob.with(fields{"plaintext": "00"}))
}

// propose has one member propose and the others keep it.
func (c cast) propose(by *actor, wire string, proposal fields) {
	by.t.Helper()
	m := by.do("propose", by.with(fields{"proposal": proposal, "wire": wire})).text("message")
	for _, a := range c {
		if a != by {
			if got := a.do("process", a.with(fields{"message": m})); got.text("kind") != "proposal" {
				by.t.Fatalf("%s: %v", a.name, got)
			}
		}
	}
}

func TestPeerExtendedProposals(t *testing.T) {
	one, two := startPeer(t), startPeer(t)
	caps := fields{"capabilities": fields{"extensions": []int{0xF001, 6}, "proposals": []int{0xF002, 8, 10}}}
	alice, bob, carol := one.actor(1, "alice", caps), two.actor(1, "bob", caps), two.actor(1, "carol", caps)
	alice.create(fields{"extensions": []fields{{"type": 0xF001, "data": "aa"}}})
	r := cast{alice}.commit(alice, fields{"proposals": []fields{
		{"type": "add", "key_package": bob.keyPackage()}, {"type": "add", "key_package": carol.keyPackage()}}})
	bob.join(r)
	carol.join(r)
	c := cast{alice, bob, carol}
	c.commit(bob, fields{"proposals": []fields{{"type": "gce", "extensions": []fields{{"type": 0xF001, "data": "bb"}}}}})
	if got := fmt.Sprint(carol.do("state", carol.with(nil))["extensions"]); got != "[map[data:bb type:61441]]" {
		t.Errorf("extensions %s", got)
	}
	c.commit(carol, fields{"proposals": []fields{{"type": "custom", "proposal_type": 0xF002, "data": "cc"}}})
	c.commit(alice, fields{"proposals": []fields{{"type": "app_data_update", "component": 0x8001, "update": "dd"}}})
	c.propose(bob, "private", fields{"type": "app_data_update", "component": 0x8001, "update": "ee"})
	c.commit(alice, nil)
	c.agree()
	c.propose(carol, "public", fields{"type": "self_remove"})
	c.commit(alice, nil)
	cast{alice, bob}.agree()
	c = cast{alice, bob}
	c.commit(alice, fields{"proposals": []fields{{"type": "reinit", "group_id": hexOf("next"), "suite": 2, "extensions": []fields{}}}})
	if got := bob.do("state", bob.with(nil)); got["active"] != false {
		t.Errorf("after a ReInit: %v", got)
	}
	bob.refuse(codeFailed, "commit", bob.with(nil))
}

func TestPeerJoinsFromOutside(t *testing.T) {
	c, two := trio(t, 2)
	alice, bob := c[0], c[1]
	info := alice.do("group_info", alice.with(fields{"ratchet_tree": false}))
	dave := two.actor(2, "dave", nil)
	dave.refuse(codeFailed, "external_join", fields{"client": dave.client, "group_info": info.text("group_info")})
	r := dave.do("external_join", fields{"client": dave.client, "group_info": info.text("group_info"), "ratchet_tree": info.text("ratchet_tree")})
	dave.state = r.text("state")
	for _, a := range c {
		a.do("process", a.with(fields{"message": r.text("commit")}))
	}
	c = append(c, dave)
	c.agree()

	// The same client comes back.
	info = bob.do("group_info", bob.with(nil))
	r = dave.do("external_join", fields{"client": dave.client, "group_info": info.text("group_info"), "resync": true})
	dave.state = r.text("state")
	for _, a := range c[:3] {
		a.do("process", a.with(fields{"message": r.text("commit")}))
	}
	c.agree()

	// A newcomer asks to be added.
	erin := two.actor(2, "erin", nil)
	m := erin.do("propose_external_add", fields{"client": erin.client, "group_info": alice.do("group_info", alice.with(nil)).text("group_info")}).text("message")
	for _, a := range c {
		a.do("process", a.with(fields{"message": m}))
	}
	erin.join(c.commit(bob, nil))
	append(c, erin).agree()
}

// The key pair of an external sender: Ed25519, the first of RFC 8032, 7.1.
const (
	senderPrivate = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
	senderPublic  = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)

func TestPeerExternalSender(t *testing.T) {
	one := startPeer(t)
	alice, bob := one.actor(1, "alice", nil), one.actor(1, "bob", nil)
	// external_senders: one sender with a basic credential "ds"
	senders := "27" + "20" + senderPublic + "0001" + "02" + hexOf("ds")
	senders = fmt.Sprintf("%02x", (len(senders)-2)/2) + senders[2:]
	alice.create(fields{"extensions": []fields{{"type": 5, "data": senders}}})
	bob.join(cast{alice}.commit(alice, fields{"proposals": []fields{{"type": "add", "key_package": bob.keyPackage()}}}))
	info := alice.do("group_info", alice.with(nil)).text("group_info")
	ask := fields{"group_info": info, "proposal": fields{"type": "remove", "identity": hexOf("bob")},
		"signature_private_key": senderPrivate, "signature_public_key": senderPublic}
	m := one.do("propose_external", ask).text("message")
	alice.do("process", alice.with(fields{"message": m}))
	bob.do("process", bob.with(fields{"message": m}))
	r := alice.do("commit", alice.with(nil))
	if got := bob.do("process", bob.with(fields{"message": r.text("commit")})); got["active"] != false {
		t.Errorf("bob stayed: %v", got)
	}
	ask["signature_public_key"] = strings.Repeat("00", 32)
	one.refuse(codeFailed, "propose_external", ask)
}

func TestPeerCredentials(t *testing.T) {
	one := startPeer(t)
	cert := "3003020101"
	x509 := &actor{one, one.do("create_client", fields{"suite": 1, "credential": fields{"type": "x509", "certs": []string{cert}}}).text("client"), "", "x509"}
	own := &actor{one, one.do("create_client", fields{"suite": 1, "credential": fields{"type": 0xF000, "data": "beef"},
		"capabilities": fields{"credentials": []int{1, 2, 0xF000}}}).text("client"), "", "own"}
	caps := fields{"capabilities": fields{"credentials": []int{1, 2, 0xF000}}}
	alice := one.actor(1, "alice", caps)
	alice.create(nil)
	one.refuse(codeFailed, "commit", alice.with(fields{"proposals": []fields{
		{"type": "add", "key_package": own.keyPackage()}, {"type": "add", "key_package": x509.keyPackage()}}}))
	x509.client = one.do("create_client", fields{"suite": 1, "credential": fields{"type": "x509", "certs": []string{cert}},
		"capabilities": fields{"credentials": []int{1, 2, 0xF000}}}).text("client")
	r := cast{alice}.commit(alice, fields{"proposals": []fields{
		{"type": "add", "key_package": own.keyPackage()}, {"type": "add", "key_package": x509.keyPackage()}}})
	own.join(r)
	x509.join(r)
	cast{alice, own, x509}.agree()
	members := fmt.Sprint(alice.do("state", alice.with(nil))["members"])
	for _, want := range []string{"certs:[" + cert + "]", "data:beef type:61440", "identity:" + hexOf("alice") + " type:basic"} {
		if !strings.Contains(members, want) {
			t.Errorf("members %s lack %s", members, want)
		}
	}
}

func TestPeerRefusesIdentities(t *testing.T) {
	one := startPeer(t)
	alice := one.actor(1, "alice", fields{"refuse_identities": []string{hexOf("mallory")}})
	bob, mallory := one.actor(1, "bob", nil), one.actor(1, "mallory", nil)
	bob.create(nil)
	alice.join(cast{bob}.commit(bob, fields{"proposals": []fields{{"type": "add", "key_package": alice.keyPackage()}}}))
	r := bob.do("commit", bob.with(fields{"proposals": []fields{{"type": "add", "key_package": mallory.keyPackage()}}}))
	alice.refuse(codeFailed, "process", alice.with(fields{"message": r.text("commit")}))
	bob.do("discard_pending", bob.with(nil))
	cast{alice, bob}.agree()
}

// A commit for which the driver leaves out merge happens when the driver goes
// on, and can be taken back until then.
func TestPeerRefusesChangedIdentities(t *testing.T) {
	leaf := func(c mls.Credential) *mls.LeafNode { return &mls.LeafNode{Credential: c} }
	alice, mallory := mls.BasicCredential([]byte("alice")), mls.BasicCredential([]byte("mallory"))
	for _, c := range []struct {
		old    *mls.LeafNode
		now    mls.Credential
		accept bool
	}{
		{nil, mallory, true},
		{leaf(alice), alice, true},
		{leaf(alice), mallory, false},
		{leaf(alice), mls.X509Credential([][]byte{{0x30, 0}}), true}, // whose that is, certificates say
	} {
		err := new(peerClient).judge(context.Background(), &mls.Judgement{Leaf: leaf(c.now), Old: c.old})
		if (err == nil) != c.accept {
			t.Errorf("%x in the place of %+v: %v", c.now.Body, c.old, err)
		}
	}
}

func TestPeerOpenCommits(t *testing.T) {
	c, _ := trio(t, 1)
	alice, bob, carol := c[0], c[1], c[2]
	before := alice.do("state", alice.with(nil))
	r := alice.do("commit", alice.with(nil))
	if got := alice.do("state", alice.with(nil)); got.text("epoch_authenticator") != r.text("epoch_authenticator") {
		t.Error("an open commit does not show")
	}
	alice.do("discard_pending", alice.with(nil))
	if got := alice.do("state", alice.with(nil)); got.text("epoch_authenticator") != before.text("epoch_authenticator") {
		t.Error("a discarded commit shows")
	}
	alice.refuse(codeFailed, "merge_pending", alice.with(nil))

	lost := alice.do("commit", alice.with(nil))
	won := bob.do("commit", bob.with(nil)).text("commit")
	for _, a := range []*actor{alice, carol} {
		a.do("process", a.with(fields{"message": won}))
	}
	bob.do("merge_pending", bob.with(nil))
	c.agree()
	carol.refuse(codeFailed, "process", carol.with(fields{"message": lost.text("commit")}))

	held := carol.do("commit", carol.with(fields{"merge": false}))
	if got := carol.do("state", carol.with(nil)); got.number("epoch") != held.number("epoch")-1 {
		t.Errorf("epoch %v with a commit that is not to be merged", got["epoch"])
	}
	carol.refuse(codeFailed, "commit", carol.with(nil))
	carol.do("process", carol.with(fields{"message": held.text("commit")})) // its own: accepted
	alice.do("process", alice.with(fields{"message": held.text("commit")}))
	bob.do("process", bob.with(fields{"message": held.text("commit")}))
	c.agree()

	alice.do("commit", alice.with(fields{"merge": true}))
	alice.do("commit", alice.with(nil))
	alice.do("commit", alice.with(fields{"merge": false})) // settles the open one
	alice.do("discard_pending", alice.with(nil))
	alice.refuse(codeFailed, "merge_pending", alice.with(nil))
}

// After a ReInit its successor is made and joined, in another cipher suite; and
// before it a branch.
func TestPeerSuccessors(t *testing.T) {
	c, two := trio(t, 1)
	alice, bob, carol := c[0], c[1], c[2]
	open := alice.do("commit", alice.with(nil)).text("commit") // counts as merged
	bob.do("process", bob.with(fields{"message": open}))
	carol.do("process", carol.with(fields{"message": open}))
	branch := func(more fields) fields {
		p := fields{"client": bob.client, "parent": bob.state, "usage": "branch", "group_id": hexOf("few"), "key_packages": []string{alice.keyPackage()}}
		for k, v := range more {
			p[k] = v
		}
		return p
	}
	bob.refuse(codeParse, "create_successor", branch(fields{"usage": "other"}))
	bob.refuse(codeParse, "create_successor", branch(fields{"key_packages": []string{"00"}}))
	bob.refuse(codeFailed, "create_successor", branch(fields{"key_packages": []string{two.actor(1, "mallory", nil).keyPackage()}}))
	bob.refuse(codeFailed, "create_successor", branch(fields{"usage": "reinit"}))
	r := bob.do("create_successor", branch(nil))
	few := cast{&actor{driver: bob.driver, client: bob.client, name: "bob", state: r.text("state")}, &actor{driver: alice.driver, client: alice.client, name: "alice"}}
	few[1].join(r)
	few.agree()
	c.agree()

	c.commit(alice, fields{"proposals": []fields{{"type": "reinit", "group_id": hexOf("next"), "suite": 2, "extensions": []fields{}}}})
	next := cast{alice.actor(2, "alice", nil), bob.actor(2, "bob", nil), carol.actor(2, "carol", nil)}
	ask := fields{"client": next[1].client, "parent": bob.state, "key_packages": []string{next[0].keyPackage()}}
	bob.refuse(codeFailed, "create_successor", ask) // carol is missing
	ask["key_packages"] = []string{next[0].keyPackage(), next[2].keyPackage()}
	r = bob.do("create_successor", ask)
	if r.text("group_id") != hexOf("next") || r.number("epoch") != 1 {
		t.Errorf("the successor: %v", r)
	}
	next[1].state = r.text("state")
	next[0].join(r)
	next[2].join(r)
	next.agree()
}

func TestPeerClones(t *testing.T) {
	c, _ := trio(t, 1)
	alice, bob := c[0], c[1]
	fork := *alice
	fork.state = alice.do("clone", alice.with(nil)).text("state")
	m := fork.do("send", fork.with(fields{"plaintext": "aa"})).text("message")
	if got := bob.do("process", bob.with(fields{"message": m})); got.text("plaintext") != "aa" {
		t.Errorf("from the clone: %v", got)
	}
	c.commit(alice, nil)
	c.agree()
	if got := fork.do("state", fork.with(nil)).number("epoch"); got != 2 {
		t.Errorf("the clone went along to epoch %d", got)
	}
	fork.do("free", fields{"state": fork.state})
	fork.refuse(codeFailed, "state", fork.with(nil))
}

func TestPeerImportsKeyPackages(t *testing.T) {
	one := startPeer(t)
	alice := one.actor(1, "alice", nil)
	one.refuse(codeParse, "import_key_package", fields{"suite": 1, "key_package": "0001"})
	one.refuse(codeParse, "import_key_package", fields{"suite": 1, "key_package": alice.keyPackage()})
	one.refuse(codeFailed, "import_key_package", fields{"suite": 1, "key_package": alice.keyPackage(),
		"init_priv": senderPrivate, "encryption_priv": senderPrivate, "signature_priv": senderPrivate})
}

// A passive client of the working group's vectors, imported: it joins.
func TestPeerImportsAVectorsClient(t *testing.T) {
	raw, err := os.ReadFile(vectorFile(t, "passive-client-welcome.json", "passive.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []fields
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	one, joined := startPeer(t), 0
	for _, c := range cases {
		if s := c.number("cipher_suite"); s == 4 || s == 6 {
			continue
		}
		params := fields{"suite": c["cipher_suite"]}
		for _, name := range []string{"key_package", "init_priv", "encryption_priv", "signature_priv"} {
			params[name] = c[name]
		}
		client := one.do("import_key_package", params).text("client")
		psks, _ := c["external_psks"].([]any)
		for _, p := range psks {
			psk := fields(p.(map[string]any))
			one.do("store_psk", fields{"client": client, "psk_id": psk["psk_id"], "psk": psk["psk"]})
		}
		state := one.do("join", fields{"client": client, "welcome": c["welcome"], "ratchet_tree": c["ratchet_tree"]}).text("state")
		got := one.do("state", fields{"state": state})
		if got.text("epoch_authenticator") != c.text("initial_epoch_authenticator") {
			t.Error("another epoch authenticator than the vector's")
		}
		joined++
	}
	if joined != 40 {
		t.Errorf("%d clients joined, want 40", joined)
	}
}

func TestPeerLifetimes(t *testing.T) {
	one := startPeer(t)
	alice, bob := one.actor(1, "alice", nil), one.actor(1, "bob", fields{"lifetime": fields{"not_before": 1, "not_after": 2}})
	alice.create(nil)
	alice.refuse(codeFailed, "commit", alice.with(fields{"proposals": []fields{{"type": "add", "key_package": bob.keyPackage()}}}))
	good := bob.do("create_key_package", fields{"client": bob.client, "lifetime": fields{"not_before": 1, "not_after": 1 << 40}})
	bob.join(cast{alice}.commit(alice, fields{"proposals": []fields{{"type": "add", "key_package": good.text("mls_message")}}}))
	cast{alice, bob}.agree()
}

// Each of these is answered, and the peer goes on.
func TestPeerHostileRequests(t *testing.T) {
	d := startPeer(t)
	alice := d.actor(1, "alice", nil)
	alice.create(nil)
	for line, code := range map[string]string{
		"{":                                codeParse,
		"[]":                               codeParse,
		`"text"`:                           codeParse,
		"{}":                               codeParse,
		"null":                             codeParse,
		"\x00\xff":                         codeParse,
		strings.Repeat("[", 100_000):       codeParse,
		`{"method":"no_such"}`:             codeUnsupported,
		`{"method":"state"}`:               codeParse,
		`{"method":"state","params":[]}`:   codeParse,
		`{"method":"state","params":null}`: codeParse,
		`{"method":"create_client","params":{"suite":4,"identity":"00"}}`:                                       codeUnsupported,
		`{"method":"create_client","params":{"suite":70000}}`:                                                   codeParse,
		`{"method":"create_client","params":{"suite":1,"identity":"0"}}`:                                        codeParse,
		`{"method":"create_client","params":{"suite":1,"identity":"zz"}}`:                                       codeParse,
		`{"method":"create_client","params":{"suite":1,"credential":{"type":"what"}}}`:                          codeParse,
		`{"method":"create_client","params":{"suite":1,"credential":{}}}`:                                       codeParse,
		`{"method":"create_client","params":{"suite":1,"signature_private_key":"00"}}`:                          codeParse,
		`{"method":"create_client","params":{"suite":2,"signature_private_key":"00"}}`:                          codeParse,
		`{"method":"state","params":{"state":"s99"}}`:                                                           codeFailed,
		`{"method":"free","params":{}}`:                                                                         codeParse,
		`{"method":"process","params":{"state":"s1","message":"00"}}`:                                           codeParse,
		`{"method":"process","params":{"state":"s1"}}`:                                                          codeParse,
		`{"method":"decode","params":{"message":"0001000300"}}`:                                                 codeParse,
		`{"method":"join","params":{"client":"c1","welcome":"0001000300"}}`:                                     codeParse,
		`{"method":"commit","params":{"state":"s1","wire":"carrier pigeon"}}`:                                   codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"what"}]}}`:                             codeUnsupported,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"remove","leaf":4294967295}]}}`:         codeFailed,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"remove","identity":"00"}]}}`:           codeFailed,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"custom","proposal_type":1}]}}`:         codeUnsupported,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"psk","psk_id":"77"}]}}`:                codeFailed,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"resumption_psk","epoch":9}]}}`:         codeFailed,
		`{"method":"export","params":{"state":"s1","label":"x","context":"","length":-1}}`:                      codeParse,
		`{"method":"export","params":{"state":"s1","context":"","length":1}}`:                                   codeParse,
		`{"method":"create_client","params":{"identity":"00"}}`:                                                 codeParse,
		`{"method":"create_group","params":{"client":"c1","extensions":[{"data":"00"}]}}`:                       codeParse,
		`{"method":"create_client","params":{"suite":1}}`:                                                       codeParse,
		`{"method":"create_client","params":{"suite":1,"credential":{"type":"x509","certs":[]}}}`:               codeParse,
		`{"method":"create_client","params":{"suite":1,"credential":{"type":0,"data":"00"}}}`:                   codeParse,
		`{"method":"create_client","params":{"suite":1,"identity":"00","lifetime":{"not_before":1}}}`:           codeParse,
		`{"method":"send","params":{"state":"s1"}}`:                                                             codeParse,
		`{"method":"propose","params":{"state":"s1"}}`:                                                          codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{}]}}`:                                          codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"remove"}]}}`:                           codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"psk"}]}}`:                              codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"resumption_psk"}]}}`:                   codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"gce"}]}}`:                              codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"app_data_update"}]}}`:                  codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"reinit","group_id":"00"}]}}`:           codeParse,
		`{"method":"commit","params":{"state":"s1","proposals":[{"type":"reinit","group_id":"00","suite":4}]}}`: codeUnsupported,
		`{"method":"export","params":{"state":"s1","label":"x","context":"","length":1000000}}`:                 codeFailed,
		`{"method":"export","params":{"state":"s1","label":"x","context":""}}`:                                  codeParse,
		`{"method":"propose_external","params":{"group_info":"00"}}`:                                            codeParse,
		`{"method":"store_psk","params":{"client":"c1"}}`:                                                       codeParse,
		`{"method":"create_group","params":{"client":"c1","extensions":[{"type":5,"data":"ff"}]}}`:              codeParse,
		`{"method":"create_group","params":{"client":"c1","extensions":[{"type":60000,"data":""}]}}`:            codeFailed,
		`{"method":"create_key_package","params":{"client":"c1","extensions":[{"type":1},{"type":1}]}}`:         codeFailed,
		`{"method":"create_key_package","params":{"client":"c1","lifetime":{"not_before":2,"not_after":1}}}`:    codeFailed,
	} {
		if a := d.raw(line); a.Error == nil || a.Error.Code != code {
			t.Errorf("%.80s: %+v, want %s", line, a, code)
		}
	}
	if a := d.raw(`{"id":{"a":[1]},"method":"info"}`); string(a.ID) != `{"a":[1]}` {
		t.Errorf("id %s", a.ID)
	}
	if a := d.raw(`{"id":7,"method":1}`); a.Error == nil || a.Error.Code != codeParse || string(a.ID) != "7" {
		t.Errorf("a method that is no text: %+v", a)
	}
	if a := d.raw("\n\n" + `{"id":"x","method":"state","params":{"state":"s1","unknown":1}}`); string(a.ID) != `"x"` || a.Result.text("group_id") != hexOf("group") {
		t.Errorf("after all that: %+v", a)
	}
}

func TestPeerLongLines(t *testing.T) {
	d := startPeer(t)
	go func() {
		chunk := strings.Repeat(" ", 1<<20)
		for range maxRequest/len(chunk) + 1 {
			io.WriteString(d.in, chunk)
		}
		io.WriteString(d.in, "\n")
	}()
	got, err := d.out.ReadBytes('\n')
	if err != nil || !bytes.Contains(got, []byte(codeParse)) {
		t.Fatalf("%s, %v", got, err)
	}
	d.do("info", nil)
}

func TestPeerInfo(t *testing.T) {
	d := startPeer(t)
	info := d.do("info", nil)
	if fmt.Sprint(info["suites"]) != "[1 2 3 5 7]" || info.text("name") == "" || info.text("version") == "" || info.text("library") == "" {
		t.Errorf("%v", info)
	}
	d.do("shutdown", nil)
	if status := <-d.status; status != exitOK {
		t.Errorf("exit status %d", status)
	}
	d.status <- exitOK
}

func TestPeerDecode(t *testing.T) {
	d := startPeer(t)
	alice := d.actor(2, "alice", nil)
	kp := d.do("create_key_package", fields{"client": alice.client})
	got := d.do("decode", fields{"message": kp.text("mls_message")})
	if got.text("wire_format") != "mls_key_package" || got.text("mls_message") != kp.text("mls_message") || got.text("ref") != kp.text("ref") || got.number("suite") != 2 {
		t.Errorf("%v", got)
	}
	alice.create(nil)
	r := alice.do("commit", alice.with(fields{"wire": "public"}))
	got = d.do("decode", fields{"message": r.text("commit")})
	if got.text("content_type") != "commit" || got.text("group_id") != hexOf("group") || got.number("epoch") != 0 || got.number("sender") != 0 {
		t.Errorf("%v", got)
	}
}

func TestPeerUsage(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"--what"}, {"--key", "software:x"}, {"--key", "cloud:x"}, {"--key", ""}} {
		if status := run(append([]string{"mls-peer"}, args...), strings.NewReader(""), io.Discard, io.Discard); status != exitUsage {
			t.Errorf("%v: status %d", args, status)
		}
	}
	for _, key := range []string{"pkcs11:token=x", "pkcs11:token=x?module-path=/nowhere.so", "tpm:"} {
		if status := run([]string{"mls-peer", "--key", key}, strings.NewReader(""), io.Discard, io.Discard); status != exitFailed {
			t.Errorf("--key %q: status %d", key, status)
		}
	}
}
