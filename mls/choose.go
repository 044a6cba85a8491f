package mls

import (
	"context"
	"errors"
)

// choose fills in b.change: it applies the proposals of a commit. What others
// proposed and cannot be committed, for instance because it would add a member
// again or needs an extension that not everybody has, is left out (section
// 12.4), so that nobody can keep this client from committing.
func (b *commitBuilder) choose(ctx context.Context, rules listRules) error {
	values := byValue(b.opts.Proposals, b.sender)
	all := b.g.collect(b.opts.Proposals, b.sender)
	kept := all[:len(all)-len(values)]
	var err error
	if b.change, err = b.g.public.apply(all, b.sender, rules); len(kept) == 0 {
		return err
	}
	c := &chooser{commitBuilder: b, ctx: ctx, rules: rules, values: values}
	if err == nil {
		err = c.agree(b.change, kept)
	}
	if err == nil || !unfit(err) || hasReInit(values) {
		return err
	}
	chosen, err := c.most(nil, kept)
	if err != nil {
		return err
	}
	b.change, err = b.g.public.apply(append(chosen, values...), b.sender, rules)
	return err
}

// unfit reports whether an error says that proposals cannot be committed, and
// not that something failed here.
func unfit(err error) bool {
	var v *ValidationError
	if !errors.As(err, &v) {
		return false
	}
	return v.Rule != RuleCommitPSKAvailable || errors.Is(err, ErrUnknownPSK) || errors.Is(err, ErrNotFound)
}

func hasReInit(items []proposalItem) bool {
	for i := range items {
		if _, ok := items[i].proposal.(*ReInit); ok {
			return true
		}
	}
	return false
}

// A chooser finds out which kept proposals can be committed together with
// those that the application wants.
type chooser struct {
	*commitBuilder
	ctx    context.Context
	rules  listRules
	values []proposalItem
}

// most extends good by as many of rest as agree with it and each other: all
// of them, or those of its two halves.
func (c *chooser) most(good, rest []proposalItem) ([]proposalItem, error) {
	if len(rest) == 0 {
		return good, nil
	}
	together := append(good[:len(good):len(good)], rest...)
	err := c.try(together)
	if err == nil {
		return together, nil
	}
	if !unfit(err) {
		return nil, err
	}
	if len(rest) == 1 {
		return good, nil
	}
	half := len(rest) / 2
	if good, err = c.most(good, rest[:half]); err != nil {
		return nil, err
	}
	return c.most(good, rest[half:])
}

func (c *chooser) try(kept []proposalItem) error {
	ch, err := c.g.public.apply(append(kept[:len(kept):len(kept)], c.values...), c.sender, c.rules)
	if err != nil {
		return err
	}
	return c.agree(ch, kept)
}

// agree checks what apply does not: the members against each other, the PSKs,
// and the application's opinion. A change of our own leaf may still make the
// members agree, so it is not anticipated then.
func (c *chooser) agree(ch *change, kept []proposalItem) error {
	if c.opts.Leaf == nil {
		if err := ch.checkGroup(); err != nil {
			return err
		}
	}
	for i := range kept {
		if p, ok := kept[i].proposal.(*PreSharedKey); ok {
			if _, err := c.g.lookupPSKs(c.ctx, []PreSharedKeyID{p.PSK}); err != nil {
				return err
			}
		}
	}
	return c.g.client.judgeChange(c.ctx, ch)
}
