package main

import (
	"bytes"
	"slices"
	"time"

	"github.com/privyseal/privyseal/mimi/report"
)

// demoReported are the parts that the report tells of: those with more than one
// party.
var demoReported = []string{"Providers", "Rooms", "Second device", "Abuse", "Ban", "Removal", "Journal"}

// writeReport writes report.html and report.txt.
func (d *demo) writeReport(began time.Time, took time.Duration) error {
	r := d.report(began, took)
	var html, text bytes.Buffer
	if err := report.HTML(&html, r); err != nil {
		return err
	}
	if err := report.Text(&text, r); err != nil {
		return err
	}
	if _, err := d.save("report.txt", text.Bytes()); err != nil {
		return err
	}
	_, err := d.save("report.html", html.Bytes())
	return err
}

func (d *demo) report(began time.Time, took time.Duration) *report.Report {
	r := &report.Report{
		Title: "Three providers, four devices, one room", Version: thisBuild().Version, Began: began, Took: took,
		Notes: []string{
			"All on one machine; token and TPM are software: who has their files has the keys.",
			"What a PKCS#11 token says of its keys is its claim; only a TPM's certification is a proof.",
		},
	}
	const claim = "the token's claim"
	r.Parties = []report.Party{
		{Name: "Alice", URI: d.rooms.alice.URI().String(), Provider: "a.example", Key: "SoftHSM token", Proof: claim},
		{Name: "Alice", URI: d.rooms.laptop.URI().String(), Provider: "a.example", Key: "TPM 2.0", Proof: "not asked for here; see Evidence"},
		{Name: "Bob", URI: d.rooms.bob.URI().String(), Provider: "b.example", Key: "TPM 2.0", Proof: "not asked for here; see Evidence"},
		{Name: "Cathy", URI: d.rooms.cathy.URI().String(), Provider: "c.example", Key: "appliance (SoftHSM)", Proof: claim},
	}
	for _, s := range d.steps {
		if !slices.Contains(demoReported, s.Part) {
			continue
		}
		verdict := report.Verified
		if s.Refused {
			verdict = report.Refused
		}
		r.Steps = append(r.Steps, report.Step{What: s.What, Checked: s.Detail, Took: time.Duration(s.TookMS) * time.Millisecond, Verdict: verdict})
	}
	return r
}
