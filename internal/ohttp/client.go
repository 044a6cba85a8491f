package ohttp

import (
	"context"
	"fmt"

	"github.com/privyseal/privyseal/internal/bhttp"
)

// A Post sends a sealed request to a relay and returns the body of its answer,
// which is of MediaTypeResponse.
type Post func(ctx context.Context, sealed []byte) ([]byte, error)

// Do sends a request to the gateway that has the key, by way of a relay.
func Do(ctx context.Context, key *KeyConfig, post Post, q *bhttp.Request) (*bhttp.Response, error) {
	b, err := q.Marshal()
	if err != nil {
		return nil, err
	}
	sealed, seal, err := SealRequest(key, bhttp.Pad(b, Padded(len(b))))
	if err != nil {
		return nil, err
	}
	answer, err := post(ctx, sealed)
	if err != nil {
		return nil, fmt.Errorf("ohttp: relay: %w", err)
	}
	opened, err := seal.OpenResponse(answer)
	if err != nil {
		return nil, err
	}
	return bhttp.ParseResponse(opened)
}

// leastPadded hides the lengths of ordinary URLs.
const leastPadded = 512

// Padded returns the size to which a message of n octets is padded, so that a
// relay learns little from it: at least 512, and then a size of which the
// number has few significant bits, at most 12% more (Padmé).
func Padded(n int) int {
	if n <= leastPadded {
		return leastPadded
	}
	exponent := bits(n) - 1
	mask := 1<<(exponent-bits(exponent)) - 1
	return (n + mask) &^ mask
}

// bits returns how many binary digits n has.
func bits(n int) (count int) {
	for ; n > 0; n >>= 1 {
		count++
	}
	return count
}
