package mls

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"
)

// validateTree checks a received tree against a GroupContext (section
// 12.4.3.1) and takes its census.
func validateTree(t *ratchetTree, ctx *GroupContext, rules leafRules) (*census, error) {
	if !bytes.Equal(t.hash(), ctx.TreeHash) {
		return nil, broken(RuleTreeHash, "tree hash differs from the GroupContext's")
	}
	if err := t.validateUnmerged(); err != nil {
		return nil, err
	}
	if err := t.verifyParentHashes(); err != nil {
		return nil, err
	}
	c, err := takeCensus(t)
	if err != nil {
		return nil, err
	}
	if err := c.checkGroup(ctx.Extensions, t.members()); err != nil {
		return nil, err
	}
	if err := c.checkBindings(t, nil); err != nil {
		return nil, err
	}
	n, err := ctx.Extensions.groupNeeds()
	if err != nil {
		return nil, err
	}
	return c, t.validateLeaves(ctx.GroupID, rules, n)
}

// validateUnmerged checks the unmerged leaves and keys of every parent.
func (t *ratchetTree) validateUnmerged() error {
	for x, n := range t.nodes() {
		if n.parent == nil {
			continue
		}
		if err := t.suite.checkPublicKey(n.parent.EncryptionKey); err != nil {
			return brokenBy(RulePathParentPublicKeys, err, "parent node %d", x)
		}
		if err := n.checkUnmerged(x); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) checkUnmerged(x NodeIndex) error {
	list := n.parent.UnmergedLeaves
	for i, l := range list {
		if i > 0 && list[i-1] >= l {
			return broken(RuleTreeUnmergedSorted, "unmerged_leaves of node %d are not strictly increasing", x)
		}
		if n.below(x, l) == nil {
			return broken(RuleTreeUnmergedLeaf, "unmerged leaf %d of node %d is blank or not below it", l, x)
		}
		if at, ok := n.carried(x, l); !ok {
			return broken(RuleTreeUnmergedBetween, "unmerged leaf %d of node %d is not unmerged at node %d", l, x, at)
		}
	}
	return nil
}

// carried reports whether every non-blank node between n and the leaf has the
// leaf among its unmerged ones, or else which has not.
func (n *node) carried(x NodeIndex, l LeafIndex) (NodeIndex, bool) {
	for level := x.level() - 1; level > 0; level-- {
		if l>>level&1 == 0 {
			n = n.left
		} else {
			n = n.right
		}
		at := nodeAt(l, level)
		if n.parent != nil && len(unmergedBelow(n.parent.UnmergedLeaves, l.Node())) == 0 {
			return at, false
		}
	}
	return 0, true
}

// validateLeaves checks every leaf by itself, signatures on all cores.
func (t *ratchetTree) validateLeaves(groupID []byte, rules leafRules, n *needs) error {
	type entry struct {
		at   LeafIndex
		leaf *LeafNode
	}
	list := make([]entry, 0, t.members())
	for l, leaf := range t.leaves() {
		list = append(list, entry{l, leaf})
	}
	return parallel(len(list), func(i int) error {
		if err := list[i].leaf.validateFields(t.suite, rules); err != nil {
			return err
		}
		if err := n.metBy(list[i].leaf); err != nil {
			return err
		}
		return list[i].leaf.verifySignature(t.suite, groupID, list[i].at)
	})
}

// parallel calls f for 0 to n-1 on all cores and returns the error of the
// lowest number that failed before the others stopped.
func parallel(n int, f func(int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 || n < 4 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var next, failed atomic.Int64
	failed.Store(int64(n))
	errs := make([]error, n)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < failed.Load(); i = next.Add(1) - 1 {
				if errs[i] = f(int(i)); errs[i] != nil {
					lower(&failed, i)
				}
			}
		})
	}
	wg.Wait()
	if i := failed.Load(); i < int64(n) {
		return errs[i]
	}
	return nil
}

func lower(v *atomic.Int64, to int64) {
	for old := v.Load(); to < old; old = v.Load() {
		if v.CompareAndSwap(old, to) {
			return
		}
	}
}
