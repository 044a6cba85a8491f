package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub/directory"
	"github.com/privyseal/privyseal/mimi/hub/provider"
)

// maxProfileBody bounds what a user tells the directory.
const maxProfileBody = 256 << 10

// putProfile has the directory know what a user tells it of itself. It is the
// only way into the directory: nobody is in it who has not said so.
func (e *edges) putProfile(w http.ResponseWriter, r *http.Request) error {
	b, err := readClientBody(w, r, maxProfileBody)
	if err != nil {
		return err
	}
	q, err := clientapi.ParseProfile(b)
	if err != nil {
		return clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	}
	user := provider.CallerOf(r.Context()).User
	if err := e.guard.Search(user); err != nil {
		return err
	}
	p := &directory.Profile{User: user, SearchableURI: q.SearchableURI}
	for _, f := range q.Fields {
		p.Fields = append(p.Fields, directory.Field{
			Source: directory.Source(f.Source), Name: f.Name, Value: f.Value, Searchable: f.Searchable, Disclosable: f.Disclosable,
		})
	}
	switch err := e.directory.Put(r.Context(), p); {
	case errors.Is(err, directory.ErrInvalid):
		return clientapi.Problemf(clientapi.CodeMalformed, "%w", err)
	case err != nil:
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (e *edges) getProfile(w http.ResponseWriter, r *http.Request) error {
	p, err := e.directory.Get(r.Context(), provider.CallerOf(r.Context()).User)
	if errors.Is(err, directory.ErrNoProfile) {
		p, err = new(directory.Profile), nil
	}
	if err != nil {
		return err
	}
	answer := &clientapi.Profile{SearchableURI: p.SearchableURI}
	for _, f := range p.Fields {
		answer.Fields = append(answer.Fields, clientapi.ProfileField{
			Source: uint8(f.Source), Name: f.Name, Value: f.Value, Searchable: f.Searchable, Disclosable: f.Disclosable,
		})
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", clientapi.ContentType)
	_, err = w.Write(answer.Marshal())
	return err
}

func (e *edges) deleteProfile(w http.ResponseWriter, r *http.Request) error {
	if err := e.directory.Delete(r.Context(), provider.CallerOf(r.Context()).User); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// departing takes a user out of the directory whose last client goes: nobody
// would be left to take it back, or to answer who finds it.
func (e *edges) departing(ctx context.Context, user mimi.URI) error {
	return e.directory.Delete(ctx, user)
}
