// Package directory finds users for identifierQuery
// (draft-ietf-mimi-protocol-06 section 5.8).
//
// Users say of each field of their profile whether it may be searched and
// whether it may be disclosed; the provider's [Policy] narrows both. What may
// not be searched is not in the index at all, so that a query for it does the
// same work, and gets the same answer, as one for nobody.
//
// A query that more than [mimi.MaxIdentifierResults] users match is ambiguous
// and names none. Substrings must have at least three characters: shorter ones
// are for listing everybody, and are forbidden.
package directory
