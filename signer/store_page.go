package signer

import (
	"context"
	"slices"
	"strings"
)

// afterIDs follows every character of a KeyID.
const afterIDs = "~"

// KeysPage returns up to most keys whose ids begin with prefix and come after
// the id after, in the order of their octets; "" begins with the first. There
// are no more when it returns fewer than most.
func (s *KeyStore) KeysPage(ctx context.Context, prefix string, after KeyID, most int) ([]*Key, error) {
	id := s.db.Dialect().Bytewise("id")
	from, bound := prefix, ` >= ?`
	if string(after) >= prefix { // one bound, or SQLite reads again what came before
		from, bound = string(after), ` > ?`
	}
	page := `k.id IN (SELECT id FROM keys WHERE ` + id + bound + ` AND ` + id + ` < ? ORDER BY ` + id + ` LIMIT ?)`
	keys, err := s.load(ctx, page, from, prefix+afterIDs, most)
	slices.SortFunc(keys, func(a, b *Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return keys, err
}
