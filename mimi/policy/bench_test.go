package policy_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// crowd draws a room of n ordinary users with one client each, and two admins.
func crowd(b *testing.B, n int) *kit {
	room := policy.Room{URI: mustURI("mimi://a.example/r/clubhouse"), Components: map[policy.ComponentID][]byte{
		policy.ComponentBase:  (&policy.BaseRoomPolicy{MultiDevice: true, MaxUsers: ptr[uint32](1 << 20)}).Marshal(),
		policy.ComponentRoles: policy.CooperativeRoles().Marshal(),
	}}
	list := new(mimi.ParticipantListData)
	for i := range n {
		name, role := fmt.Sprintf("u%d", i), mimi.RoleIndex(2)
		if i < 2 {
			role = 3
		}
		list.Participants = append(list.Participants, mimi.UserRolePair{User: uri(name), Role: role})
		room.Leaves = append(room.Leaves, policy.Leaf{Index: uint32(i), Client: clientOf(name, 0)})
	}
	room.Components[policy.ComponentParticipantList] = list.Marshal()
	s, err := policy.NewState(policy.Config{}, room)
	if err != nil {
		b.Fatal(err)
	}
	return &kit{t: b, s: s, clients: 1}
}

// commits are changes to one user, by name.
var commits = map[string]string{
	"ban":    "u0 commits; u0: u%d>1 drop:u%d",
	"remove": "u0 commits; u0: -u%d drop:u%d",
	"add":    "u0 commits; u0: +new:2 add:new",
	"client": "u0 commits; u0: add:u0",
}

func commitOf(k *kit, name string, n int) policy.Action {
	script := commits[name]
	if name == "ban" || name == "remove" {
		script = fmt.Sprintf(script, n/2, n/2)
	}
	return k.action(script)
}

// BenchmarkAuthorize judges one commit that changes one user, in rooms of several
// sizes.
func BenchmarkAuthorize(b *testing.B) {
	for _, name := range []string{"ban", "remove", "add", "client"} {
		for _, n := range []int{100, 1000, 10_000, 100_000} {
			k := crowd(b, n)
			action := commitOf(k, name, n)
			b.Run(fmt.Sprintf("%s/N=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := policy.Authorize(k.s, action); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkAuthorizeAndApply adds a user and removes it again.
func BenchmarkAuthorizeAndApply(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		k := crowd(b, n)
		b.Run(fmt.Sprintf("N=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.apply("u0: +new:2 add:new")
				k.apply("u0: -new drop:new")
			}
		})
	}
}

// BenchmarkFlatInN compares a room of 10,000 with one of 100 in interleaved
// rounds of one run, and reports the median ratio.
func BenchmarkFlatInN(b *testing.B) {
	small, large := crowd(b, 100), crowd(b, 10_000)
	one, other := commitOf(small, "ban", 100), commitOf(large, "ban", 10_000)
	var ratios []float64
	for b.Loop() {
		a, z := round(b, small, one), round(b, large, other)
		ratios = append(ratios, float64(z)/float64(a))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "N=10000/N=100")
}

func round(b *testing.B, k *kit, a policy.Action) time.Duration {
	start := time.Now()
	for range 1000 {
		if _, err := policy.Authorize(k.s, a); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
