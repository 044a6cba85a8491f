package mls

import (
	"context"
	"fmt"
	"testing"

	"github.com/thomas-vilte/mls-go/ciphersuite"
	peercredentials "github.com/thomas-vilte/mls-go/credentials"
	peergroup "github.com/thomas-vilte/mls-go/group"
	"github.com/thomas-vilte/mls-go/keypackages"
)

// A peerRoom is a group of mls-go in the shape of its own benchmarks: one
// creator, who added all others in one commit.
type peerRoom struct {
	group  *peergroup.Group
	signer *ciphersuite.SignaturePrivateKey
}

func newPeerRoom(b *testing.B, n int) *peerRoom {
	b.Helper()
	newKeyPackage := func(name string) (*keypackages.KeyPackage, *keypackages.KeyPackagePrivateKeys) {
		cred, _, err := peercredentials.GenerateCredentialWithKey([]byte(name))
		if err != nil {
			b.Fatal(err)
		}
		kp, private, err := keypackages.Generate(cred, keypackages.MLS128DHKEMP256)
		if err != nil {
			b.Fatal(err)
		}
		return kp, private
	}
	kp, private := newKeyPackage("creator")
	g := must(peergroup.NewGroup(must(peergroup.NewGroupIDRandom()), ciphersuite.MLS128DHKEMP256, kp, private))
	r := &peerRoom{g, ciphersuite.NewSignaturePrivateKey(private.SignatureKey)}
	for i := 1; i < n; i++ {
		kp, _ := newKeyPackage(fmt.Sprint("member ", i))
		must(g.AddMember(kp))
	}
	if n > 1 {
		r.commit()
	}
	return r
}

func (r *peerRoom) commit() {
	must(0, r.group.MergeCommit(must(r.group.Commit(r.signer, r.signer.PublicKey(), nil))))
}

// BenchmarkAgainstPeer runs mls-go's benchmarks of commits and messages on both
// engines, suite 2. Nobody but the creator has committed, so that each commit
// encrypts to every member: the shape leaves little room between the two.
func BenchmarkAgainstPeer(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{2, 100, 500} {
		alice, _ := largeRoom(b, P256AES128SHA256P256, n)
		peer, data := newPeerRoom(b, n), make([]byte, 1024)
		b.Run(fmt.Sprintf("commit/members=%d", n), func(b *testing.B) {
			race(b,
				contestant{name: "ours", run: func() {
					must(alice.Commit(ctx, CommitOptions{WireFormat: WirePublicMessage}))
					must(0, alice.MergePending(ctx))
				}},
				contestant{name: "mls-go", run: peer.commit})
		})
		b.Run(fmt.Sprintf("send/members=%d", n), func(b *testing.B) {
			race(b,
				contestant{name: "ours", run: repeat(16, func() { must(alice.Send(ctx, data, nil)) })},
				contestant{name: "mls-go", run: repeat(16, func() { must(peer.group.SendMessage(data, peer.signer)) })})
		})
	}
}
