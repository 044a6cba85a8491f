package openapi_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/signer/api/openapi"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
)

// plain removes the descriptions, which only the proto itself has.
func plain(t *testing.T, doc []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(without(v))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func without(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if _, text := e.(string); text && name == "description" {
				delete(v, name)
				continue
			}
			v[name] = without(e)
		}
	case []any:
		for i := range v {
			v[i] = without(v[i])
		}
	}
	return v
}

// TestDocumentMatchesTheDescriptors fails when the proto was changed and
// scripts/proto.sh was not run.
func TestDocumentMatchesTheDescriptors(t *testing.T) {
	want, err := openapi.Generate(signerv1.File_privyseal_signer_v1_signer_proto)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plain(t, want), plain(t, openapi.Document())) {
		t.Error("openapi.json is not that of the proto; run scripts/proto.sh")
	}
}

// TestDocumentIsComplete looks for every method, message and field by name,
// and for its description.
func TestDocumentIsComplete(t *testing.T) {
	var doc struct {
		Paths map[string]struct {
			Post struct{ Description string }
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
			}
		}
	}
	if err := json.Unmarshal(openapi.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	file := signerv1.File_privyseal_signer_v1_signer_proto
	methods := 0
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		for j := range s.Methods().Len() {
			methods++
			if path := "/" + string(s.FullName()) + "/" + string(s.Methods().Get(j).Name()); doc.Paths[path].Post.Description == "" {
				t.Errorf("%s is missing or has no description", path)
			}
		}
	}
	if len(doc.Paths) != methods {
		t.Errorf("%d paths, want %d", len(doc.Paths), methods)
	}
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		schema, ok := doc.Components.Schemas[string(m.Name())]
		if !ok || len(schema.Properties) != m.Fields().Len() {
			t.Errorf("schema of %s is missing, or has %d members for %d fields", m.Name(), len(schema.Properties), m.Fields().Len())
		}
	}
	if !strings.Contains(string(openapi.Document()), `"openapi": "3.1.0"`) {
		t.Error("the document does not say its version")
	}
}
