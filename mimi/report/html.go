package report

import (
	_ "embed"
	"html/template"
	"io"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"plain":    plain,
	"duration": duration,
	"when":     func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") },
}).Parse(pageText))

// HTML writes the report as a page that prints on one sheet of A4 or Letter.
func HTML(w io.Writer, r *Report) error {
	if err := r.check(); err != nil {
		return err
	}
	return page.Execute(w, struct {
		*Report
		Summary string
	}{r, r.summary()})
}
