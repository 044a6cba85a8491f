package clientapi

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// A body is a struct of this API.
type body interface {
	append(*tlsvec.Builder)
	read(*tlsvec.Reader)
}

func marshal(m body) []byte {
	b := tlsvec.NewBuilder(512)
	m.append(b)
	return b.Bytes()
}

// parse decodes exactly one struct from a copy of b.
func parse(name string, b []byte, m body) error {
	r := tlsvec.NewReader(bytes.Clone(b))
	m.read(r)
	if err := r.Done(); err != nil {
		return fmt.Errorf("clientapi: %s: %w", name, err)
	}
	return nil
}

func appendURI(b *tlsvec.Builder, u mimi.URI) { b.String(u.String()) }

func readURI(r *tlsvec.Reader, kinds ...mimi.Kind) mimi.URI {
	u, err := mimi.ParseURI(string(r.Vector()))
	switch {
	case r.Err() != nil:
	case err != nil:
		r.Fail(err.Error())
	case !slices.Contains(kinds, u.Kind()):
		r.Fail("URI of a " + u.Kind().String())
	}
	return u
}

func readUser(r *tlsvec.Reader) mimi.URI { return readURI(r, mimi.KindUser, mimi.KindPseudonym) }

// readBounded reads opaque data<V> of at most the given octets.
func readBounded(r *tlsvec.Reader, name string, most int) []byte {
	v := r.Vector()
	if len(v) > most {
		r.Fail(fmt.Sprintf("%s of %d octets, want at most %d", name, len(v), most))
	}
	return v
}

// readList reads a vector of at most the given elements.
func readList[T any](r *tlsvec.Reader, name string, most int, read func(*tlsvec.Reader) T) []T {
	var list []T
	r.Each(func(r *tlsvec.Reader) {
		if len(list) == most {
			r.Fail(fmt.Sprintf("more than %d %s", most, name))
			return
		}
		list = append(list, read(r))
	})
	return list
}

func appendList[T any](b *tlsvec.Builder, list []T, write func(*tlsvec.Builder, T)) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, v := range list {
			write(b, v)
		}
	})
}

func appendCredential(b *tlsvec.Builder, c mls.Credential) {
	b.Uint16(uint16(c.Type))
	b.Vector(c.Body)
}

func readCredential(r *tlsvec.Reader) mls.Credential {
	return mls.Credential{Type: mls.CredentialType(r.Uint16()), Body: readBounded(r, "credential", maxCredentialBytes)}
}

// readStruct reads a struct of MLS in a vector, in the one form in which encode
// writes it.
func readStruct[T any](r *tlsvec.Reader, parse func([]byte) (T, error), encode func(T) []byte) (v T) {
	raw := r.Vector()
	if r.Err() != nil {
		return v
	}
	v, err := parse(raw)
	switch {
	case err != nil:
		r.Fail(err.Error())
	case !bytes.Equal(encode(v), raw):
		r.Fail("not in the form that is sent here")
	}
	return v
}

func readBool(r *tlsvec.Reader) bool { return r.Optional() }
