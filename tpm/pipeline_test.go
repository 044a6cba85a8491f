package tpm_test

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// A gate holds back commands of one kind until so many of them are ready.
type gate struct {
	tpm.Transport
	kind tpm2.TPMCC
	here sync.WaitGroup
}

func (g *gate) Send(command []byte) ([]byte, error) {
	if g.kind == tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
		g.here.Done()
		g.here.Wait()
	}
	return g.Transport.Send(command)
}

// As many commands are ready as a TPM has sessions, so that it never waits for
// one to be prepared; of MACs too, which need a slot of their own only where a
// message does not fit one command. After a policy was used there is one session
// less for the others.
func TestCommandsAreReady(t *testing.T) {
	for _, c := range []struct {
		name   string
		spec   tpm.KeySpec
		kind   tpm2.TPMCC
		policy bool
		want   int
	}{
		{"MACs", tpm.KeySpec{Kind: tpm.MACSHA256}, tpm2.TPMCCHMAC, false, 3},
		{"signatures", tpm.KeySpec{}, tpm2.TPMCCSign, false, 3},
		{"MACs beside a policy", tpm.KeySpec{Kind: tpm.MACSHA256}, tpm2.TPMCCHMAC, true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := new(gate)
			d := tpmtest.OpenConfig(t, tpm.Config{Address: tpmtest.Start(t, swtpm.Config{}).Address(),
				Wrap: func(next tpm.Transport) tpm.Transport { g.Transport = next; return g }})
			k := generate(t, d, c.spec)
			if c.policy {
				mustSign(t, generate(t, d, tpm.KeySpec{PCRs: []int{1}}))
			}
			use(t, k) // it is loaded from now on
			g.here.Add(c.want)
			g.kind = c.kind
			var group sync.WaitGroup
			for range c.want {
				group.Go(func() { use(t, k) })
			}
			group.Wait() // never, if they are not ready at once
			g.kind = 0
			if err := d.CheckLoaded(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func use(t *testing.T, k *tpm.Key) {
	t.Helper()
	var err error
	if k.Kind() == tpm.MACSHA256 {
		_, err = k.MAC(t.Context(), []byte(rand.Text()))
	} else {
		_, err = k.SignMessageContext(t.Context(), []byte(rand.Text()), nil)
	}
	if err != nil {
		t.Error(err)
	}
}

// Whoever needs a policy for the first time takes the place of a session that
// others use without pause, and an operation that needs both waits for nobody who
// waits for it.
func TestPoliciesAmongOthers(t *testing.T) {
	d := tpmtest.OpenConfig(t, tpm.Config{Address: tpmtest.Start(t, swtpm.Config{Endorsement: true}).Address()})
	signs, macs, ak := generate(t, d, tpm.KeySpec{}), generate(t, d, tpm.KeySpec{Kind: tpm.MACSHA256}), generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
	ek := ekOf(t, d, 1) // on P-256, whose use a policy authorizes
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for range 3 {
				use(t, signs)
				use(t, macs)
			}
		})
		group.Go(func() {
			challenge, credential, err := tpm.NewChallenge(ek.Public, ak.PublicArea())
			if err != nil {
				t.Error(err)
				return
			}
			answer, err := d.ActivateCredential(t.Context(), ek, ak, credential)
			if err != nil || !challenge.Check(answer) {
				t.Errorf("the challenge was not answered: %v", err)
			}
		})
		group.Go(func() {
			k, err := d.GenerateKey(t.Context(), tpm.KeySpec{PCRs: []int{1}})
			if err == nil {
				err = sign(t, t.Context(), k)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}
