package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

// A shownProfile is what the directory may tell of us.
type shownProfile struct {
	SearchableURI bool                `json:"searchable_uri"`
	Fields        []shownProfileField `json:"fields"`
}

type shownProfileField struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	Searchable  bool   `json:"searchable"`
	Disclosable bool   `json:"disclosable"`
}

func newClientProfile(a *app, f *clientFlags) *cobra.Command {
	var name, email string
	var uri, hide, remove bool
	c := &cobra.Command{Use: "profile", Short: "Say what the provider's directory may tell of us, or print it", Args: noArgs,
		Long: "A provider finds nobody who has not asked to be found. Without flags the command prints\n" +
			"what the directory may tell; with flags it replaces all of it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case remove && (name != "" || email != "" || uri || hide):
				return usageError{errors.New("--delete goes with no other flag")}
			case hide && name == "" && email == "":
				return usageError{errors.New("--hide goes with --name or --email")}
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				switch {
				case remove:
					if err := c.DeleteProfile(ctx); err != nil {
						return err
					}
				case name != "" || email != "" || uri:
					p := &clientapi.Profile{SearchableURI: uri}
					for claim, value := range map[string]string{"name": name, "email": email} {
						if value != "" {
							p.Fields = append(p.Fields, clientapi.ProfileField{Source: clientapi.ProfileOIDC, Name: claim, Value: value, Searchable: true, Disclosable: !hide})
						}
					}
					if err := c.SetProfile(ctx, p); err != nil {
						return err
					}
				}
				p, err := c.Profile(ctx)
				if err != nil {
					return err
				}
				return a.printProfile(p)
			})
		}}
	c.Flags().StringVar(&name, "name", "", "be found by this display `name`, or by a part of it")
	c.Flags().StringVar(&email, "email", "", "be found by this `address`")
	c.Flags().BoolVar(&uri, "uri", false, "be found by our mimi URI and by the user name in it")
	c.Flags().BoolVar(&hide, "hide", false, "be found by name and address, and do not show them")
	c.Flags().BoolVar(&remove, "delete", false, "take back everything")
	return c
}

func (a *app) printProfile(p *clientapi.Profile) error {
	shown := &shownProfile{SearchableURI: p.SearchableURI, Fields: []shownProfileField{}}
	for _, f := range p.Fields {
		shown.Fields = append(shown.Fields, shownProfileField{f.Name, f.Value, f.Searchable, f.Disclosable})
	}
	return a.print(shown, func(w io.Writer) {
		if !shown.SearchableURI && len(shown.Fields) == 0 {
			fmt.Fprintln(w, "the directory tells nobody of us")
			return
		}
		fmt.Fprintf(w, "uri         found by it: %t\n", shown.SearchableURI)
		for _, f := range shown.Fields {
			fmt.Fprintf(w, "%-11s %s  found by it: %t, shown: %t\n", f.Name, f.Value, f.Searchable, f.Disclosable)
		}
	})
}

// searches are the kinds of search by their flags.
var searches = []struct {
	name, usage string
	kind        mimi.SearchIdentifierType
}{
	{"uri", "who is this mimi URI", mimi.SearchHandle},
	{"nick", "whose user name or nickname is this", mimi.SearchNick},
	{"email", "whose address is this", mimi.SearchEmail},
	{"phone", "whose number is this", mimi.SearchPhone},
	{"name", "in whose name is this (at least three characters)", mimi.SearchPartialName},
}

// A foundUser is one that a directory has found.
type foundUser struct {
	User   string            `json:"user"`
	Fields map[string]string `json:"fields,omitempty"`
}

func newClientFind(a *app, f *clientFlags) *cobra.Command {
	values := make([]string, len(searches))
	c := &cobra.Command{Use: "find PROVIDER", Short: "Search the directory of a provider", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := new(mimi.IdentifierRequest)
			for i, s := range searches {
				if values[i] != "" {
					q.QueryElements = append(q.QueryElements, mimi.QueryElement{SearchType: s.kind, SearchValue: values[i]})
				}
			}
			if len(q.QueryElements) == 0 {
				return usageError{errors.New("say what to search for: --uri, --nick, --email, --phone or --name")}
			}
			return a.withClient(cmd.Context(), f, func(ctx context.Context, c *client.Client) error {
				p, err := c.Find(ctx, args[0], q)
				if err != nil {
					return err
				}
				return a.printFound(p)
			})
		}}
	for i, s := range searches {
		c.Flags().StringVar(&values[i], s.name, "", s.usage)
	}
	return c
}

func (a *app) printFound(p *mimi.IdentifierResponse) error {
	switch p.ResponseCode {
	case mimi.QuerySuccess, mimi.QueryNotFound:
	case mimi.QueryAmbiguous:
		return errors.New("too many users fit; say more of whom is meant")
	default:
		return fmt.Errorf("the provider does not search for that (code %d)", p.ResponseCode)
	}
	found := []foundUser{}
	for _, u := range p.URIs {
		one := foundUser{User: u.String(), Fields: make(map[string]string)}
		for _, profile := range p.FoundProfiles {
			if profile.StableURI == u {
				for _, field := range profile.Fields {
					one.Fields[field.Name] = string(field.Value)
				}
			}
		}
		found = append(found, one)
	}
	return a.print(found, func(w io.Writer) {
		if len(found) == 0 {
			fmt.Fprintln(w, "nobody is found")
		}
		for _, u := range found {
			var words []string
			for name, value := range u.Fields {
				words = append(words, fmt.Sprintf("%s: %q", name, value))
			}
			fmt.Fprintf(w, "%s  %s\n", u.User, strings.Join(words, ", "))
		}
	})
}
