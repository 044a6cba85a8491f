package directory

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/peer"
)

// Policy is what the provider allows of what its users allow. Each nil function
// allows everything.
type Policy struct {
	Asks        func(domain string) bool // which providers may ask
	Searchable  func(s Source, name string) bool
	Disclosable func(s Source, name string) bool
}

// A key names one field of a vocabulary.
type key struct {
	source Source
	name   string
}

// nameFields are those that partialName looks at.
var nameFields = []key{
	{OIDCStdClaim, "name"}, {OIDCStdClaim, "given_name"}, {OIDCStdClaim, "family_name"}, {OIDCStdClaim, "middle_name"},
	{OIDCStdClaim, "nickname"}, {OIDCStdClaim, "preferred_username"}, {VCard, "FN"}, {VCard, "N"}, {VCard, "NICKNAME"},
}

// exact are the fields that each type of exact search looks at.
var exact = map[mimi.SearchIdentifierType][]key{
	mimi.SearchHandle: {{Handle, ""}},
	mimi.SearchNick:   {{userPart, ""}, {OIDCStdClaim, "nickname"}, {OIDCStdClaim, "preferred_username"}, {VCard, "NICKNAME"}},
	mimi.SearchEmail:  {{OIDCStdClaim, "email"}, {VCard, "EMAIL"}},
	mimi.SearchPhone:  {{OIDCStdClaim, "phone_number"}, {VCard, "TEL"}},
}

// everything is what wholeProfile looks at.
var everything = allKeys()

func allKeys() []key {
	list := []key{{Handle, ""}, {userPart, ""}}
	for name := range oidcClaims {
		list = append(list, key{OIDCStdClaim, name})
	}
	for name := range vcardProperties {
		list = append(list, key{VCard, name})
	}
	return list
}

// keys returns the fields that an element looks at, and whether for a part.
func keys(e mimi.QueryElement) (list []key, part bool, code mimi.IdentifierQueryCode) {
	switch e.SearchType {
	case mimi.SearchPartialName:
		return nameFields, true, mimi.QuerySuccess
	case mimi.SearchWholeProfile:
		return everything, true, mimi.QuerySuccess
	case mimi.SearchOIDCStdClaim:
		list = []key{{OIDCStdClaim, e.FieldName}}
	case mimi.SearchVCardField:
		list = []key{{VCard, strings.ToUpper(e.FieldName)}}
	default:
		return exact[e.SearchType], false, mimi.QuerySuccess
	}
	if !known(list[0].source, list[0].name) {
		return nil, false, mimi.QueryUnsupportedField
	}
	return list, false, mimi.QuerySuccess
}

// allowed drops the fields that the provider does not let be searched.
func (d *Directory) allowed(list []key) []key {
	var kept []key
	for _, k := range list {
		if d.policy.Searchable == nil || d.policy.Searchable(k.source, k.name) {
			kept = append(kept, k)
		}
	}
	return kept
}

// A search is a statement under way, with one condition for each element.
type search struct {
	where []string
	args  []any
}

func (s *search) add(list []key, e mimi.QueryElement, part bool) {
	var alternatives []string
	for _, k := range list {
		alternatives = append(alternatives, `(t.source = ? AND t.name = ?)`)
		s.args = append(s.args, int(k.source), k.name)
	}
	condition := `u.id IN (SELECT t.user_id FROM directory_term t WHERE (` + strings.Join(alternatives, " OR ") + `)`
	if !part {
		s.where = append(s.where, condition+` AND t.value = ?)`)
		s.args = append(s.args, e.SearchValue)
		return
	}
	folded := fold(e.SearchValue)
	for _, g := range spread(grams(folded)) {
		condition += ` AND t.id IN (SELECT g.term_id FROM directory_gram g WHERE g.gram = ?)`
		s.args = append(s.args, g)
	}
	s.where = append(s.where, condition+` AND t.folded LIKE ? ESCAPE '\')`)
	s.args = append(s.args, "%"+likeText.Replace(folded)+"%")
}

var likeText = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// spread returns the first, the middle and the last gram: enough to leave few
// candidates.
func spread(list []string) []string {
	if len(list) <= 3 {
		return list
	}
	return []string{list[0], list[len(list)/2], list[len(list)-1]}
}

// plan makes the statement of a query, or says which code it has at once.
func (d *Directory) plan(q *mimi.IdentifierRequest) (*search, mimi.IdentifierQueryCode) {
	if len(q.QueryElements) == 0 {
		return nil, mimi.QueryForbidden
	}
	s := new(search)
	for _, e := range q.QueryElements {
		list, part, code := keys(e)
		if code != mimi.QuerySuccess {
			return nil, code
		}
		list = d.allowed(list)
		if len(list) == 0 || part && utf8.RuneCountInString(e.SearchValue) < gramLength {
			return nil, mimi.QueryForbidden
		}
		if e.SearchValue == "" || !text(e.SearchValue) {
			return nil, mimi.QueryNotFound
		}
		s.add(list, e, part)
	}
	return s, mimi.QuerySuccess
}

// Query answers a query from a provider. Only a failure of the database is an
// error.
func (d *Directory) Query(ctx context.Context, asking string, q *mimi.IdentifierRequest) (*mimi.IdentifierResponse, error) {
	if d.policy.Asks != nil && !d.policy.Asks(asking) {
		return &mimi.IdentifierResponse{ResponseCode: mimi.QueryForbidden}, nil
	}
	s, code := d.plan(q)
	if code != mimi.QuerySuccess {
		return &mimi.IdentifierResponse{ResponseCode: code}, nil
	}
	answer := new(mimi.IdentifierResponse)
	err := d.db.Read(ctx, func(tx *sqldb.Tx) error {
		ids, uris, err := s.run(ctx, tx)
		if err != nil {
			return err
		}
		*answer = mimi.IdentifierResponse{URIs: uris}
		switch {
		case len(uris) == 0:
			answer.ResponseCode = mimi.QueryNotFound
			return nil
		case len(uris) > mimi.MaxIdentifierResults:
			*answer = mimi.IdentifierResponse{ResponseCode: mimi.QueryAmbiguous}
			return nil
		}
		answer.FoundProfiles, err = d.disclose(ctx, tx, ids, uris)
		return err
	})
	return answer, wrap(err)
}

// run returns at most one more user than may be named.
func (s *search) run(ctx context.Context, tx *sqldb.Tx) (ids []int64, uris []mimi.URI, err error) {
	rows, err := tx.Query(ctx, `SELECT u.id, u.uri FROM directory_user u WHERE `+strings.Join(s.where, " AND ")+` ORDER BY u.uri LIMIT ?`,
		append(s.args, mimi.MaxIdentifierResults+1)...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var s string
		if err := rows.Scan(&id, &s); err != nil {
			return nil, nil, err
		}
		u, err := mimi.ParseURI(s)
		if err != nil {
			return nil, nil, fmt.Errorf("the database has a bad URI: %w", err)
		}
		ids, uris = append(ids, id), append(uris, u)
	}
	return ids, uris, rows.Err()
}

// disclose returns the profiles that have something to disclose.
func (d *Directory) disclose(ctx context.Context, tx *sqldb.Tx, ids []int64, uris []mimi.URI) (profiles []mimi.UserProfile, err error) {
	for i, id := range ids {
		fields, err := readFields(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		p := mimi.UserProfile{StableURI: uris[i]}
		for _, f := range fields {
			if f.Disclosable && (d.policy.Disclosable == nil || d.policy.Disclosable(f.Source, f.Name)) {
				p.Fields = append(p.Fields, mimi.ProfileField{Source: mimi.FieldSource(f.Source), Name: f.Name, Value: []byte(f.Value)})
			}
		}
		if len(p.Fields) > 0 {
			profiles = append(profiles, p)
		}
	}
	return profiles, nil
}

// Routes serves identifierQuery.
func (d *Directory) Routes(server *peer.Server) {
	server.Handle(peer.IdentifierQuery, func(ctx context.Context, r *peer.Request) ([]byte, error) {
		if r.Variable != r.Provider {
			return nil, problem.New(http.StatusBadRequest, "path", "the path is about %q, this is %s", r.Variable, r.Provider)
		}
		q, err := mimi.ParseIdentifierRequest(r.Body)
		if err != nil {
			return nil, problem.New(http.StatusBadRequest, "malformed", "%w", err)
		}
		answer, err := d.Query(ctx, r.Peer.Domain, q)
		if err != nil {
			return nil, err
		}
		return answer.Marshal(), nil
	})
}
